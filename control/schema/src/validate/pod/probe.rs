//! Probes and lifecycle hooks.

use serde_json::Value;

use crate::FieldError;
use crate::path::Path;
use crate::value::{at, int_at, list_at, text_at};

use super::super::checks;

const HANDLERS: [&str; 5] = ["exec", "httpGet", "tcpSocket", "grpc", "sleep"];

pub(super) fn validate(probe: &Value, kind: &str, path: &Path, errors: &mut Vec<FieldError>) {
    validate_handler(probe, path, errors);
    for key in [
        "initialDelaySeconds",
        "timeoutSeconds",
        "periodSeconds",
        "successThreshold",
        "failureThreshold",
    ] {
        if let Some(number) = int_at(probe, key).filter(|number| *number < 0) {
            let detail = "must be greater than or equal to 0";
            errors.push(FieldError::invalid(path.child(key), number, detail));
        }
    }
    let threshold = int_at(probe, "successThreshold").unwrap_or(1);
    if kind != "readinessProbe" && threshold != 1 {
        errors.push(FieldError::invalid(
            path.child("successThreshold"),
            threshold,
            "must be 1",
        ));
    }
    if let Some(grace) = int_at(probe, "terminationGracePeriodSeconds") {
        let path = path.child("terminationGracePeriodSeconds");
        if kind == "readinessProbe" {
            errors.push(FieldError::invalid(
                path,
                grace,
                "must not be set for readinessProbes",
            ));
        } else if grace <= 0 {
            errors.push(FieldError::invalid(path, grace, "must be greater than 0"));
        }
    }
}

/// Exactly one way to act, and that one right.
pub(super) fn validate_handler(handler: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let found: Vec<&str> = HANDLERS
        .into_iter()
        .filter(|key| at(handler, key).is_some())
        .collect();
    let Some((first, others)) = found.split_first() else {
        errors.push(FieldError::required(path, "must specify a handler type"));
        return;
    };
    for other in others {
        let detail = "may not specify more than 1 handler type";
        errors.push(FieldError::forbidden(path.child(other), detail));
    }
    let Some(action) = at(handler, first) else {
        return;
    };
    let path = path.child(first);
    match *first {
        "exec" if list_at(action, "command").is_empty() => {
            errors.push(FieldError::required(path.child("command"), ""));
        }
        "httpGet" => validate_http_get(action, &path, errors),
        "tcpSocket" => {
            let port = at(action, "port").cloned().unwrap_or_default();
            checks::port_number_or_name(&path.child("port"), &port, errors);
        }
        "grpc" => {
            checks::port_number(
                &path.child("port"),
                int_at(action, "port").unwrap_or(0),
                errors,
            );
        }
        _ => {}
    }
}

fn validate_http_get(action: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    if text_at(action, "path").is_empty() {
        errors.push(FieldError::required(path.child("path"), ""));
    }
    let port = at(action, "port").cloned().unwrap_or_default();
    checks::port_number_or_name(&path.child("port"), &port, errors);
    checks::one_of(
        &path.child("scheme"),
        text_at(action, "scheme"),
        &["HTTP", "HTTPS"],
        true,
        errors,
    );
    for header in list_at(action, "httpHeaders") {
        let name = text_at(header, "name");
        let is_token =
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if !is_token {
            let detail = "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')";
            errors.push(FieldError::invalid(path.child("httpHeaders"), name, detail));
        }
    }
}
