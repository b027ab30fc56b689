//! Pods and the specs of pods in templates.

mod container;
mod placement;
mod probe;
mod resources;
mod update;
mod volume;

use serde_json::Value;

use crate::path::Path;
use crate::value::{at, bool_at, int_at, list_at, text_at};
use crate::{FieldError, names};

use super::checks;

pub(super) use update::validate_update;

const RESTART_POLICIES: &[&str] = &["Always", "OnFailure", "Never"];
const DNS_POLICIES: &[&str] = &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];

pub(super) fn validate(pod: &Value, errors: &mut Vec<FieldError>) {
    if let Some(spec) = pod.get("spec") {
        validate_spec(spec, &Path::new("spec"), errors);
    }
}

pub(super) fn validate_spec(spec: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let volumes = volume::validate_all(spec, path, errors);
    container::validate_all(spec, path, &volumes, errors);
    let word = |key: &str| text_at(spec, key);
    checks::one_of(
        &path.child("restartPolicy"),
        word("restartPolicy"),
        RESTART_POLICIES,
        true,
        errors,
    );
    validate_dns(spec, path, errors);
    placement::validate(spec, path, errors);
    validate_names(spec, path, errors);
    validate_security_context(spec, path, errors);
    if let Some(deadline) = int_at(spec, "activeDeadlineSeconds")
        && !(1..=i64::from(i32::MAX)).contains(&deadline)
    {
        let detail = "must be between 1 and 2147483647, inclusive";
        errors.push(FieldError::invalid(
            path.child("activeDeadlineSeconds"),
            deadline,
            detail,
        ));
    }
    for (index, alias) in list_at(spec, "hostAliases").iter().enumerate() {
        let path = path.child("hostAliases").index(index);
        checks::ip_address(&path.child("ip"), text_at(alias, "ip"), errors);
        for (index, host) in list_at(alias, "hostnames")
            .iter()
            .filter_map(Value::as_str)
            .enumerate()
        {
            let path = path.child("hostnames").index(index);
            checks::problems(&path, host, names::dns1123_subdomain(host), errors);
        }
    }
}

fn validate_dns(spec: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let policy = text_at(spec, "dnsPolicy");
    checks::one_of(&path.child("dnsPolicy"), policy, DNS_POLICIES, true, errors);
    let servers = list_at(spec, "dnsConfig.nameservers");
    if policy == "None" && at(spec, "dnsConfig").is_none() {
        let detail = "must provide `dnsConfig` when `dnsPolicy` is None";
        errors.push(FieldError::required(path.child("dnsConfig"), detail));
    } else if policy == "None" && servers.is_empty() {
        let detail = "must provide at least one DNS nameserver when `dnsPolicy` is None";
        errors.push(FieldError::required(
            path.child("dnsConfig.nameservers"),
            detail,
        ));
    }
    for (index, server) in servers.iter().filter_map(Value::as_str).enumerate() {
        checks::ip_address(
            &path.child("dnsConfig.nameservers").index(index),
            server,
            errors,
        );
    }
}

fn validate_names(spec: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    type Form = fn(&str) -> Vec<String>;
    for (key, form) in [
        ("serviceAccountName", names::dns1123_subdomain as Form),
        ("nodeName", names::dns1123_subdomain),
        ("priorityClassName", names::dns1123_subdomain),
        ("runtimeClassName", names::dns1123_subdomain),
        ("hostname", names::dns1123_label),
        ("subdomain", names::dns1123_label),
    ] {
        let value = text_at(spec, key);
        if !value.is_empty() {
            checks::problems(&path.child(key), value, form(value), errors);
        }
    }
}

fn validate_security_context(spec: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    if bool_at(spec, "hostPID") && bool_at(spec, "shareProcessNamespace") {
        let detail = "ShareProcessNamespace and HostPID cannot both be enabled";
        errors.push(FieldError::invalid(
            path.child("shareProcessNamespace"),
            true,
            detail,
        ));
    }
    let Some(context) = at(spec, "securityContext") else {
        return;
    };
    let path = path.child("securityContext");
    for key in ["runAsUser", "runAsGroup", "fsGroup"] {
        validate_id(context, key, &path, errors);
    }
    for (index, group) in list_at(context, "supplementalGroups").iter().enumerate() {
        let number = group.as_i64().unwrap_or(0);
        if !(0..=i64::from(i32::MAX)).contains(&number) {
            let path = path.child("supplementalGroups").index(index);
            errors.push(FieldError::invalid(path, number, ID_RANGE));
        }
    }
}

const ID_RANGE: &str = "must be between 0 and 2147483647, inclusive";

/// A user or group id.
fn validate_id(context: &Value, key: &str, path: &Path, errors: &mut Vec<FieldError>) {
    if let Some(id) = int_at(context, key)
        && !(0..=i64::from(i32::MAX)).contains(&id)
    {
        errors.push(FieldError::invalid(path.child(key), id, ID_RANGE));
    }
}
