//! Endpoints and EndpointSlices.

use serde_json::Value;

use crate::path::Path;
use crate::value::{at, int_at, list_at, text_at};
use crate::{FieldError, names};

use super::checks;

/// As in Kubernetes, which splits what is larger into several slices.
const ENDPOINTS_MAX: usize = 1000;
const ADDRESSES_MAX: usize = 100;
const PORTS_MAX: usize = 20_000;

pub(super) fn validate(endpoints: &Value, errors: &mut Vec<FieldError>) {
    for (index, subset) in list_at(endpoints, "subsets").iter().enumerate() {
        let path = Path::new("subsets").index(index);
        let (ready, unready) = (
            list_at(subset, "addresses"),
            list_at(subset, "notReadyAddresses"),
        );
        if ready.is_empty() && unready.is_empty() {
            let detail = "must specify `addresses` or `notReadyAddresses`";
            errors.push(FieldError::required(&path, detail));
        }
        for (list, addresses) in [("addresses", ready), ("notReadyAddresses", unready)] {
            for (index, address) in addresses.iter().enumerate() {
                let path = path.child(list).index(index);
                let ip = text_at(address, "ip");
                checks::endpoint_address(&path.child("ip"), ip, errors);
                let node = text_at(address, "nodeName");
                if !node.is_empty() {
                    let problems = names::dns1123_subdomain(node);
                    checks::problems(&path.child("nodeName"), node, problems, errors);
                }
                validate_hostname(address, &path, errors);
            }
        }
        let ports = list_at(subset, "ports");
        for (index, port) in ports.iter().enumerate() {
            let path = path.child("ports").index(index);
            let name = text_at(port, "name");
            if name.is_empty() && ports.len() > 1 {
                errors.push(FieldError::required(path.child("name"), ""));
            } else if !name.is_empty() {
                checks::problems(
                    &path.child("name"),
                    name,
                    names::dns1123_label(name),
                    errors,
                );
            }
            checks::port_number(
                &path.child("port"),
                int_at(port, "port").unwrap_or(0),
                errors,
            );
            let protocol = text_at(port, "protocol");
            checks::one_of(
                &path.child("protocol"),
                protocol,
                checks::PROTOCOLS,
                true,
                errors,
            );
        }
    }
}

fn validate_hostname(owner: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let hostname = text_at(owner, "hostname");
    if !hostname.is_empty() {
        let problems = names::dns1123_label(hostname);
        checks::problems(&path.child("hostname"), hostname, problems, errors);
    }
}

pub(super) fn validate_slice(slice: &Value, errors: &mut Vec<FieldError>) {
    let kind = text_at(slice, "addressType");
    let allowed = &["FQDN", "IPv4", "IPv6"];
    checks::one_of(&Path::new("addressType"), kind, allowed, true, errors);
    let endpoints = list_at(slice, "endpoints");
    if endpoints.len() > ENDPOINTS_MAX {
        errors.push(FieldError::too_many(
            "endpoints",
            endpoints.len(),
            ENDPOINTS_MAX,
        ));
        return;
    }
    for (index, endpoint) in endpoints.iter().enumerate() {
        validate_endpoint(endpoint, kind, &Path::new("endpoints").index(index), errors);
    }
    let ports = list_at(slice, "ports");
    if ports.len() > PORTS_MAX {
        errors.push(FieldError::too_many("ports", ports.len(), PORTS_MAX));
        return;
    }
    let mut seen: Vec<&str> = Vec::new();
    for (index, port) in ports.iter().enumerate() {
        let path = Path::new("ports").index(index);
        let name = text_at(port, "name");
        if seen.contains(&name) {
            errors.push(FieldError::duplicate(path.child("name"), name));
        }
        seen.push(name);
        if !name.is_empty() {
            checks::problems(
                &path.child("name"),
                name,
                names::dns1123_label(name),
                errors,
            );
        }
        let protocol = text_at(port, "protocol");
        checks::one_of(
            &path.child("protocol"),
            protocol,
            checks::PROTOCOLS,
            true,
            errors,
        );
        let app_protocol = text_at(port, "appProtocol");
        if !app_protocol.is_empty() {
            let problems = names::qualified_name(app_protocol);
            checks::problems(&path.child("appProtocol"), app_protocol, problems, errors);
        }
    }
}

fn validate_endpoint(endpoint: &Value, kind: &str, path: &Path, errors: &mut Vec<FieldError>) {
    let addresses = list_at(endpoint, "addresses");
    let path_of = |index: usize| path.child("addresses").index(index);
    if addresses.is_empty() {
        let detail = "must contain at least 1 address";
        errors.push(FieldError::required(path.child("addresses"), detail));
    } else if addresses.len() > ADDRESSES_MAX {
        errors.push(FieldError::too_many(
            path.child("addresses"),
            addresses.len(),
            ADDRESSES_MAX,
        ));
    }
    for (index, address) in addresses.iter().filter_map(Value::as_str).enumerate() {
        let path = path_of(index);
        match kind {
            "IPv4" if address.parse::<std::net::Ipv6Addr>().is_ok() => {
                errors.push(FieldError::invalid(
                    path,
                    address,
                    "must be an IPv4 address",
                ));
            }
            "IPv6" if address.parse::<std::net::Ipv4Addr>().is_ok() => {
                errors.push(FieldError::invalid(
                    path,
                    address,
                    "must be an IPv6 address",
                ));
            }
            "IPv4" | "IPv6" => checks::endpoint_address(&path, address, errors),
            "FQDN" => checks::problems(&path, address, names::dns1123_subdomain(address), errors),
            _ => {}
        }
    }
    validate_hostname(endpoint, path, errors);
    if let Some(node) = at(endpoint, "nodeName").and_then(Value::as_str) {
        checks::problems(
            &path.child("nodeName"),
            node,
            names::dns1123_subdomain(node),
            errors,
        );
    }
}
