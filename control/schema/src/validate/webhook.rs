//! Mutating webhook configurations.

use serde_json::Value;

use crate::path::Path;
use crate::value::{at, int_at, list_at, text_at};
use crate::{FieldError, names};

use super::checks;

const OPERATIONS: &[&str] = &["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
/// Versions of AdmissionReview that we speak.
const REVIEW_VERSIONS: &[&str] = &["v1"];

pub(super) fn validate(configuration: &Value, errors: &mut Vec<FieldError>) {
    let mut seen: Vec<&str> = Vec::new();
    for (index, webhook) in list_at(configuration, "webhooks").iter().enumerate() {
        let path = Path::new("webhooks").index(index);
        let name = text_at(webhook, "name");
        validate_name(name, &path.child("name"), errors);
        checks::unique(&path.child("name"), name, &mut seen, errors);
        validate_webhook(webhook, &path, errors);
    }
}

fn validate_name(name: &str, path: &Path, errors: &mut Vec<FieldError>) {
    checks::required_form(path, name, names::dns1123_subdomain, errors);
    if names::dns1123_subdomain(name).is_empty() && name.split('.').count() < 3 {
        let detail = "should be a domain with at least three segments separated by dots";
        errors.push(FieldError::invalid(path, name, detail));
    }
}

fn validate_webhook(webhook: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let word = |key: &str| text_at(webhook, key);
    validate_versions(webhook, path, errors);
    for (index, rule) in list_at(webhook, "rules").iter().enumerate() {
        validate_rule(rule, &path.child("rules").index(index), errors);
    }
    for (key, allowed) in [
        ("failurePolicy", &["Fail", "Ignore"][..]),
        ("matchPolicy", &["Equivalent", "Exact"]),
        ("reinvocationPolicy", &["IfNeeded", "Never"]),
    ] {
        checks::one_of(&path.child(key), word(key), allowed, false, errors);
    }
    match at(webhook, "sideEffects").and_then(Value::as_str) {
        None => {
            let detail = "must specify one of None, NoneOnDryRun";
            errors.push(FieldError::required(path.child("sideEffects"), detail));
        }
        Some("None" | "NoneOnDryRun") => {}
        Some(other) => {
            let allowed = &["None", "NoneOnDryRun"];
            errors.push(FieldError::not_supported(
                path.child("sideEffects"),
                other,
                allowed,
            ));
        }
    }
    if let Some(seconds) = int_at(webhook, "timeoutSeconds")
        && !(1..=30).contains(&seconds)
    {
        let detail = "the timeout value must be between 1 and 30 seconds";
        errors.push(FieldError::invalid(
            path.child("timeoutSeconds"),
            seconds,
            detail,
        ));
    }
    for key in ["namespaceSelector", "objectSelector"] {
        if let Some(selector) = at(webhook, key) {
            checks::label_selector(selector, &path.child(key), errors);
        }
    }
    let config = at(webhook, "clientConfig").cloned().unwrap_or_default();
    validate_client_config(&config, &path.child("clientConfig"), errors);
}

fn validate_versions(webhook: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let path = path.child("admissionReviewVersions");
    let versions = list_at(webhook, "admissionReviewVersions");
    for (index, version) in versions.iter().enumerate() {
        if versions[..index].contains(version) {
            errors.push(FieldError::invalid(
                path.index(index),
                version.clone(),
                "duplicate version",
            ));
        }
    }
    if versions.is_empty() {
        let detail = "must specify one of v1, v1beta1";
        errors.push(FieldError::required(path, detail));
    } else if !versions
        .iter()
        .filter_map(Value::as_str)
        .any(|one| REVIEW_VERSIONS.contains(&one))
    {
        let detail = "must include at least one of v1";
        errors.push(FieldError::invalid(path, versions.to_vec(), detail));
    }
}

fn validate_rule(rule: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let operations = list_at(rule, "operations");
    if operations.is_empty() {
        errors.push(FieldError::required(path.child("operations"), ""));
    }
    if operations.len() > 1 && operations.iter().any(|one| one == "*") {
        let detail = "if '*' is present, must not specify other operations";
        errors.push(FieldError::invalid(
            path.child("operations"),
            operations.to_vec(),
            detail,
        ));
    }
    for (index, operation) in operations.iter().filter_map(Value::as_str).enumerate() {
        let path = path.child("operations").index(index);
        checks::one_of(&path, operation, OPERATIONS, true, errors);
    }
    for (key, what) in [
        ("apiGroups", "groups"),
        ("apiVersions", "versions"),
        ("resources", "resources"),
    ] {
        let list = list_at(rule, key);
        if list.is_empty() {
            errors.push(FieldError::required(path.child(key), ""));
        } else if key != "resources" && list.len() > 1 && list.iter().any(|one| one == "*") {
            let detail = format!("if '*' is present, must not specify other API {what}");
            errors.push(FieldError::invalid(path.child(key), list.to_vec(), detail));
        }
    }
    let scope = text_at(rule, "scope");
    checks::one_of(
        &path.child("scope"),
        scope,
        &["*", "Cluster", "Namespaced"],
        false,
        errors,
    );
}

/// Where a webhook is: a URL or a service, not both.
pub(crate) fn validate_client_config(config: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    match (
        at(config, "url").and_then(Value::as_str),
        at(config, "service"),
    ) {
        (Some(_), Some(_)) | (None, None) => {
            let detail = "exactly one of url or service is required";
            errors.push(FieldError::required(path, detail));
        }
        (Some(url), None) => {
            if !url.starts_with("https://") {
                let scheme = url.split_once("://").map_or("", |(scheme, _)| scheme);
                let detail = format!(
                    "'https' is the only allowed URL scheme; should be in the form https://host[:port]/path, found {scheme:?}"
                );
                errors.push(FieldError::invalid(path.child("url"), url, detail));
            }
        }
        (None, Some(service)) => {
            let path = path.child("service");
            for key in ["name", "namespace"] {
                if text_at(service, key).is_empty() {
                    errors.push(FieldError::required(path.child(key), ""));
                }
            }
            if let Some(port) = int_at(service, "port") {
                checks::port_number(&path.child("port"), port, errors);
            }
            let service_path = text_at(service, "path");
            if !service_path.is_empty() && !service_path.starts_with('/') {
                let detail = "must start with a '/'";
                errors.push(FieldError::invalid(
                    path.child("path"),
                    service_path,
                    detail,
                ));
            }
        }
    }
}
