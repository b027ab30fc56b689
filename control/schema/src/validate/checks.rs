//! Rules that many kinds share.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde_json::Value;

use crate::path::Path;
use crate::value::{at, list_at, map_at, text_at};
use crate::{FieldError, names};

pub(super) const IMMUTABLE: &str = "field is immutable";
pub(super) const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];
const NOT_NEGATIVE: &str = "must be greater than or equal to 0";

/// Each problem as an invalid value.
pub(super) fn problems(
    path: &Path,
    value: &str,
    problems: Vec<String>,
    errors: &mut Vec<FieldError>,
) {
    errors.extend(
        problems
            .into_iter()
            .map(|problem| FieldError::invalid(path, value, problem)),
    );
}

/// A text that must be there and have a form.
pub(super) fn required_form(
    path: &Path,
    value: &str,
    form: fn(&str) -> Vec<String>,
    errors: &mut Vec<FieldError>,
) {
    if value.is_empty() {
        errors.push(FieldError::required(path, ""));
    } else {
        problems(path, value, form(value), errors);
    }
}

/// A text of a closed set, which may be empty unless `required`.
pub(super) fn one_of(
    path: &Path,
    value: &str,
    allowed: &[&str],
    required: bool,
    errors: &mut Vec<FieldError>,
) {
    if value.is_empty() {
        if required {
            errors.push(FieldError::required(path, ""));
        }
    } else if !allowed.contains(&value) {
        errors.push(FieldError::not_supported(path, value, allowed));
    }
}

pub(super) fn port_number(path: &Path, port: i64, errors: &mut Vec<FieldError>) {
    if !(1..=65_535).contains(&port) {
        errors.push(FieldError::invalid(
            path,
            port,
            "must be between 1 and 65535, inclusive",
        ));
    }
}

/// Addresses or ranges of two families at most, one of each.
pub(super) fn one_per_family(
    path: &Path,
    values: &[Value],
    what: &str,
    errors: &mut Vec<FieldError>,
) {
    let is_v6 = |value: &Value| value.as_str().is_some_and(|text| text.contains(':'));
    let v6 = values.iter().filter(|value| is_v6(value)).count();
    if v6 > 1 || values.len() - v6 > 1 {
        let detail = format!("may specify no more than one {what} for each IP family");
        errors.push(FieldError::invalid(path, values.to_vec(), detail));
    }
}

/// A port by number or by name.
pub(super) fn port_number_or_name(path: &Path, port: &Value, errors: &mut Vec<FieldError>) {
    match port {
        Value::String(name) => problems(path, name, names::port_name(name), errors),
        number => port_number(path, number.as_i64().unwrap_or(0), errors),
    }
}

/// A number that must not be below zero, where it is there.
pub(super) fn not_negative(object: &Value, path: &str, errors: &mut Vec<FieldError>) {
    if let Some(number) = at(object, path)
        .and_then(Value::as_i64)
        .filter(|number| *number < 0)
    {
        errors.push(FieldError::invalid(path, number, NOT_NEGATIVE));
    }
}

/// A field that stays as it is.
pub(super) fn immutable(new: &Value, old: &Value, path: &str, errors: &mut Vec<FieldError>) {
    if at(new, path) != at(old, path) {
        let shown = at(new, path).cloned().unwrap_or_default();
        errors.push(FieldError::invalid(path, shown, IMMUTABLE));
    }
}

/// Labels: keys and values.
pub(super) fn labels(owner: &Value, key: &str, path: &Path, errors: &mut Vec<FieldError>) {
    for (key, value) in map_at(owner, key) {
        problems(path, key, names::qualified_name(key), errors);
        let value = value.as_str().unwrap_or("");
        problems(path, value, names::label_value(value), errors);
    }
}

/// A `metav1.LabelSelector`.
pub(super) fn label_selector(selector: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    labels(selector, "matchLabels", &path.child("matchLabels"), errors);
    for (index, one) in list_at(selector, "matchExpressions").iter().enumerate() {
        let path = path.child("matchExpressions").index(index);
        let values = list_at(one, "values");
        match text_at(one, "operator") {
            "In" | "NotIn" if values.is_empty() => errors.push(FieldError::required(
                path.child("values"),
                "must be specified when `operator` is 'In' or 'NotIn'",
            )),
            "In" | "NotIn" => {}
            "Exists" | "DoesNotExist" if !values.is_empty() => errors.push(FieldError::forbidden(
                path.child("values"),
                "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
            )),
            "Exists" | "DoesNotExist" => {}
            other => errors.push(FieldError::invalid(
                path.child("operator"),
                other,
                "not a valid selector operator",
            )),
        }
        let key = text_at(one, "key");
        problems(&path.child("key"), key, names::qualified_name(key), errors);
        for (index, value) in values.iter().filter_map(Value::as_str).enumerate() {
            let path = path.child("values").index(index);
            problems(&path, value, names::label_value(value), errors);
        }
    }
}

/// An address, without the leading zeros that some parsers read as octal.
pub(super) fn ip_address(path: &Path, text: &str, errors: &mut Vec<FieldError>) {
    if text.parse::<IpAddr>().is_err() {
        let detail = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
        errors.push(FieldError::invalid(path, text, detail));
    }
}

/// An address that endpoints may have: no other pod could reach these.
pub(super) fn endpoint_address(path: &Path, text: &str, errors: &mut Vec<FieldError>) {
    let Ok(address) = text.parse::<IpAddr>() else {
        ip_address(path, text, errors);
        return;
    };
    let refused = match address {
        address if address.is_unspecified() => Some(format!("may not be unspecified ({text})")),
        address if address.is_loopback() => {
            Some("may not be in the loopback range (127.0.0.0/8, ::1/128)".to_owned())
        }
        IpAddr::V4(v4) if v4.is_link_local() => {
            Some("may not be in the link-local range (169.254.0.0/16, fe80::/10)".to_owned())
        }
        IpAddr::V6(v6) if v6.is_unicast_link_local() => {
            Some("may not be in the link-local range (169.254.0.0/16, fe80::/10)".to_owned())
        }
        IpAddr::V4(v4) if v4.octets()[..3] == [224, 0, 0] => Some(
            "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)".to_owned(),
        ),
        _ => None,
    };
    errors.extend(refused.map(|detail| FieldError::invalid(path, text, detail)));
}

pub(super) fn cidr(path: &Path, text: &str, errors: &mut Vec<FieldError>) {
    let valid = text.split_once('/').is_some_and(|(address, prefix)| {
        let bits_max = match (address.parse::<Ipv4Addr>(), address.parse::<Ipv6Addr>()) {
            (Ok(_), _) => 32,
            (_, Ok(_)) => 128,
            _ => return false,
        };
        prefix.parse::<u8>().is_ok_and(|bits| bits <= bits_max)
    });
    if !valid {
        let detail = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
        errors.push(FieldError::invalid(path, text, detail));
    }
}

/// A text that no other of the list has; remembers it.
pub(super) fn unique<'v>(
    path: &Path,
    value: &'v str,
    seen: &mut Vec<&'v str>,
    errors: &mut Vec<FieldError>,
) {
    if seen.contains(&value) {
        errors.push(FieldError::duplicate(path, value));
    } else if !value.is_empty() {
        seen.push(value);
    }
}
