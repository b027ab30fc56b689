//! Services.

use serde_json::{Value, json};

use crate::path::Path;
use crate::value::{at, int_at, list_at, text_at};
use crate::{FieldError, names};

use super::checks;

const TYPES: &[&str] = &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const POLICIES: &[&str] = &["Cluster", "Local"];
/// A day: longer, and clients would stay for good.
const AFFINITY_SECONDS_MAX: i64 = 86_400;

pub(super) fn validate(service: &Value, errors: &mut Vec<FieldError>) {
    let path = Path::new("spec");
    let kind = text_at(service, "spec.type");
    checks::one_of(&path.child("type"), kind, TYPES, true, errors);
    checks::labels(service, "spec.selector", &path.child("selector"), errors);
    validate_ports(service, kind, errors);
    validate_type(service, kind, errors);
    validate_affinity(service, errors);
    validate_addresses(service, kind, errors);
    let internal = text_at(service, "spec.internalTrafficPolicy");
    checks::one_of(
        &path.child("internalTrafficPolicy"),
        internal,
        POLICIES,
        kind != "ExternalName",
        errors,
    );
    let external = text_at(service, "spec.externalTrafficPolicy");
    let reachable = matches!(kind, "NodePort" | "LoadBalancer")
        || (kind == "ClusterIP" && !list_at(service, "spec.externalIPs").is_empty());
    if reachable {
        let required = kind != "ClusterIP";
        checks::one_of(
            &path.child("externalTrafficPolicy"),
            external,
            POLICIES,
            required,
            errors,
        );
    } else if !external.is_empty() {
        let detail = "may only be set for externally-accessible services";
        errors.push(FieldError::invalid(
            path.child("externalTrafficPolicy"),
            external,
            detail,
        ));
    }
    if at(service, "spec.allocateLoadBalancerNodePorts").is_some() && kind != "LoadBalancer" {
        let detail = "may only be used when `type` is 'LoadBalancer'";
        errors.push(FieldError::forbidden(
            path.child("allocateLoadBalancerNodePorts"),
            detail,
        ));
    }
    if at(service, "spec.loadBalancerClass").is_some() && kind != "LoadBalancer" {
        let detail = "may only be used when `type` is 'LoadBalancer'";
        errors.push(FieldError::forbidden(
            path.child("loadBalancerClass"),
            detail,
        ));
    }
    let ranges = list_at(service, "spec.loadBalancerSourceRanges");
    if !ranges.is_empty() && kind != "LoadBalancer" {
        let detail = "may only be used when `type` is 'LoadBalancer'";
        errors.push(FieldError::forbidden(
            path.child("LoadBalancerSourceRanges"),
            detail,
        ));
    }
    for (index, range) in ranges.iter().filter_map(Value::as_str).enumerate() {
        checks::cidr(
            &path.child("LoadBalancerSourceRanges").index(index),
            range.trim(),
            errors,
        );
    }
}

fn is_headless(service: &Value) -> bool {
    text_at(service, "spec.clusterIP") == "None"
}

fn validate_type(service: &Value, kind: &str, errors: &mut Vec<FieldError>) {
    let path = Path::new("spec");
    match kind {
        "LoadBalancer" | "NodePort" if is_headless(service) => {
            let detail = format!("may not be set to 'None' for {kind} services");
            errors.push(FieldError::invalid(
                path.child("clusterIPs").index(0),
                "None",
                detail,
            ));
        }
        "ExternalName" => {
            for key in ["clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
                let is_set = at(service, &format!("spec.{key}"))
                    .is_some_and(|value| value.as_array().is_none_or(|list| !list.is_empty()));
                if is_set {
                    let detail = "may not be set for ExternalName services";
                    errors.push(FieldError::forbidden(path.child(key), detail));
                }
            }
            let name = text_at(service, "spec.externalName").trim_end_matches('.');
            checks::required_form(
                &path.child("externalName"),
                name,
                names::dns1123_subdomain,
                errors,
            );
        }
        _ => {}
    }
}

fn validate_ports(service: &Value, kind: &str, errors: &mut Vec<FieldError>) {
    let ports = list_at(service, "spec.ports");
    let path = Path::new("spec.ports");
    if ports.is_empty() && !is_headless(service) && kind != "ExternalName" {
        errors.push(FieldError::required(&path, ""));
    }
    let mut seen_names: Vec<&str> = Vec::new();
    let mut seen_ports: Vec<(i64, &str)> = Vec::new();
    let mut seen_node_ports: Vec<(i64, &str)> = Vec::new();
    for (index, port) in ports.iter().enumerate() {
        let path = path.index(index);
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
            checks::unique(&path.child("name"), name, &mut seen_names, errors);
        }
        let number = int_at(port, "port").unwrap_or(0);
        checks::port_number(&path.child("port"), number, errors);
        let protocol = text_at(port, "protocol");
        checks::one_of(
            &path.child("protocol"),
            protocol,
            checks::PROTOCOLS,
            true,
            errors,
        );
        if let Some(target) = at(port, "targetPort") {
            checks::port_number_or_name(&path.child("targetPort"), target, errors);
        }
        let app_protocol = text_at(port, "appProtocol");
        if !app_protocol.is_empty() {
            let problems = names::qualified_name(app_protocol);
            checks::problems(&path.child("appProtocol"), app_protocol, problems, errors);
        }
        let node_port = int_at(port, "nodePort").unwrap_or(0);
        if node_port != 0 && kind == "ClusterIP" {
            let detail = "may not be used when `type` is 'ClusterIP'";
            errors.push(FieldError::forbidden(path.child("nodePort"), detail));
        } else if node_port != 0 && seen_node_ports.contains(&(node_port, protocol)) {
            errors.push(FieldError::duplicate(path.child("nodePort"), node_port));
        }
        seen_node_ports.push((node_port, protocol));
        if seen_ports.contains(&(number, protocol)) {
            let shown = json!({"protocol": protocol, "port": number, "targetPort": 0});
            errors.push(FieldError::duplicate(&path, shown));
        }
        seen_ports.push((number, protocol));
    }
}

fn validate_affinity(service: &Value, errors: &mut Vec<FieldError>) {
    let affinity = text_at(service, "spec.sessionAffinity");
    let allowed = &["ClientIP", "None"];
    checks::one_of(
        &Path::new("spec.sessionAffinity"),
        affinity,
        allowed,
        true,
        errors,
    );
    let path = "spec.sessionAffinityConfig.clientIP.timeoutSeconds";
    if let Some(seconds) = int_at(service, path)
        && !(1..=AFFINITY_SECONDS_MAX).contains(&seconds)
    {
        let detail = format!("must be greater than 0 and less than {AFFINITY_SECONDS_MAX}");
        errors.push(FieldError::invalid(path, seconds, detail));
    }
}

fn validate_addresses(service: &Value, kind: &str, errors: &mut Vec<FieldError>) {
    for (index, address) in list_at(service, "spec.externalIPs")
        .iter()
        .filter_map(Value::as_str)
        .enumerate()
    {
        let path = Path::new("spec.externalIPs").index(index);
        if address.parse::<std::net::IpAddr>().is_err() {
            checks::ip_address(&path, address, errors);
        } else {
            checks::endpoint_address(&path, address, errors);
        }
    }
    if kind == "ExternalName" {
        return;
    }
    let addresses = list_at(service, "spec.clusterIPs");
    let path = Path::new("spec.clusterIPs");
    let primary = text_at(service, "spec.clusterIP");
    if !primary.is_empty() && addresses.first().is_some_and(|first| first != primary) {
        let detail = "first value must match `clusterIP`";
        errors.push(FieldError::invalid(&path, addresses.to_vec(), detail));
    }
    if primary.is_empty() && !addresses.is_empty() {
        let detail = "must be empty when `clusterIP` is not specified";
        errors.push(FieldError::invalid(&path, addresses.to_vec(), detail));
    }
    checks::one_per_family(&path, addresses, "IP", errors);
    for (index, address) in addresses.iter().filter_map(Value::as_str).enumerate() {
        if address != "None" {
            checks::ip_address(&path.index(index), address, errors);
        }
    }
    let families = list_at(service, "spec.ipFamilies");
    let mut seen: Vec<&str> = Vec::new();
    for (index, family) in families.iter().filter_map(Value::as_str).enumerate() {
        let path = Path::new("spec.ipFamilies").index(index);
        checks::unique(&path, family, &mut seen, errors);
        checks::one_of(&path, family, &["IPv4", "IPv6"], true, errors);
    }
    let policy = text_at(service, "spec.ipFamilyPolicy");
    let allowed = &["PreferDualStack", "RequireDualStack", "SingleStack"];
    checks::one_of(
        &Path::new("spec.ipFamilyPolicy"),
        policy,
        allowed,
        false,
        errors,
    );
}

/// An address that was given stays.
pub(super) fn validate_update(new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
    let is_external = |service: &Value| text_at(service, "spec.type") == "ExternalName";
    if is_external(new) || is_external(old) {
        return;
    }
    let (now, before) = (
        list_at(new, "spec.clusterIPs"),
        list_at(old, "spec.clusterIPs"),
    );
    let path = Path::new("spec.clusterIPs").index(0);
    match (now.first(), before.first()) {
        (None, Some(_)) => {
            let detail = "primary clusterIP can not be unset";
            errors.push(FieldError::invalid(path, now.to_vec(), detail));
        }
        (Some(now_first), Some(before_first)) if now_first != before_first => {
            errors.push(FieldError::invalid(
                path,
                now.to_vec(),
                "may not change once set",
            ));
        }
        _ => {}
    }
}
