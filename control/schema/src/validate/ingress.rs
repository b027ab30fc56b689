//! Ingresses and their classes.

use std::net::IpAddr;

use serde_json::Value;

use crate::path::Path;
use crate::value::{at, int_at, list_at, text_at};
use crate::{FieldError, names};

use super::checks;

const CONTROLLER_BYTES_MAX: usize = 250;
const FORBIDDEN_IN_PATHS: [&str; 5] = ["//", "/./", "/../", "%2f", "%2F"];
const FORBIDDEN_AT_THE_END: [&str; 2] = ["/..", "/."];

pub(super) fn validate(ingress: &Value, errors: &mut Vec<FieldError>) {
    let rules = list_at(ingress, "spec.rules");
    let backend = at(ingress, "spec.defaultBackend");
    let spec = Path::new("spec");
    if rules.is_empty() && backend.is_none() {
        let detail = "either `defaultBackend` or `rules` must be specified";
        errors.push(FieldError::invalid(
            &spec,
            at(ingress, "spec.rules").cloned().unwrap_or_default(),
            detail,
        ));
    }
    if let Some(backend) = backend {
        validate_backend(backend, &spec.child("defaultBackend"), errors);
    }
    for (index, rule) in rules.iter().enumerate() {
        let path = spec.child("rules").index(index);
        validate_host(text_at(rule, "host"), &path.child("host"), errors);
        if let Some(http) = at(rule, "http") {
            validate_paths(http, &path.child("http"), errors);
        }
    }
    for (index, tls) in list_at(ingress, "spec.tls").iter().enumerate() {
        let path = spec.child("tls").index(index);
        for (index, host) in list_at(tls, "hosts")
            .iter()
            .filter_map(Value::as_str)
            .enumerate()
        {
            let problems = host_problems(host);
            checks::problems(&path.child("hosts").index(index), host, problems, errors);
        }
        let secret = text_at(tls, "secretName");
        if !secret.is_empty() {
            let problems = names::dns1123_subdomain(secret);
            checks::problems(&path.child("secretName"), secret, problems, errors);
        }
    }
    let class = text_at(ingress, "spec.ingressClassName");
    if !class.is_empty() {
        let problems = names::dns1123_subdomain(class);
        checks::problems(&spec.child("ingressClassName"), class, problems, errors);
    }
}

fn host_problems(host: &str) -> Vec<String> {
    if host.contains('*') {
        names::wildcard_subdomain(host)
    } else {
        names::dns1123_subdomain(host)
    }
}

fn validate_host(host: &str, path: &Path, errors: &mut Vec<FieldError>) {
    if host.is_empty() {
        return;
    }
    if host.parse::<IpAddr>().is_ok() {
        errors.push(FieldError::invalid(
            path,
            host,
            "must be a DNS name, not an IP address",
        ));
    }
    checks::problems(path, host, host_problems(host), errors);
}

fn validate_paths(http: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let paths = list_at(http, "paths");
    if paths.is_empty() {
        errors.push(FieldError::required(path.child("paths"), ""));
    }
    for (index, one) in paths.iter().enumerate() {
        let path = path.child("paths").index(index);
        validate_path(one, &path, errors);
        // Without a type the real server does not look further.
        if let Some(backend) = at(one, "backend").filter(|_| at(one, "pathType").is_some()) {
            validate_backend(backend, &path.child("backend"), errors);
        }
    }
}

fn validate_path(one: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let (kind, text) = (text_at(one, "pathType"), text_at(one, "path"));
    let field = path.child("path");
    let absolute = |errors: &mut Vec<FieldError>| {
        if !text.starts_with('/') {
            errors.push(FieldError::invalid(
                &field,
                text,
                "must be an absolute path",
            ));
        }
    };
    match kind {
        "" => errors.push(FieldError::required(
            path.child("pathType"),
            "pathType must be specified",
        )),
        "Exact" | "Prefix" => {
            absolute(errors);
            for part in FORBIDDEN_IN_PATHS
                .iter()
                .filter(|part| text.contains(*part))
            {
                let detail = format!("must not contain '{part}'");
                errors.push(FieldError::invalid(&field, text, detail));
            }
            for part in FORBIDDEN_AT_THE_END
                .iter()
                .filter(|part| text.ends_with(*part))
            {
                errors.push(FieldError::invalid(
                    &field,
                    text,
                    format!("cannot end with '{part}'"),
                ));
            }
        }
        "ImplementationSpecific" => {
            if !text.is_empty() {
                absolute(errors);
            }
        }
        other => {
            let allowed = &["Exact", "ImplementationSpecific", "Prefix"];
            errors.push(FieldError::not_supported(
                path.child("pathType"),
                other,
                allowed,
            ));
        }
    }
}

fn validate_backend(backend: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    match (at(backend, "service"), at(backend, "resource")) {
        (Some(_), Some(_)) => {
            let detail = "cannot set both resource and service backends";
            errors.push(FieldError::invalid(path, "", detail));
        }
        (None, None) => {
            errors.push(FieldError::invalid(
                path,
                "",
                "resource or service backend is required",
            ));
        }
        (None, Some(resource)) => {
            for key in ["kind", "name"] {
                if text_at(resource, key).is_empty() {
                    errors.push(FieldError::required(path.child("resource").child(key), ""));
                }
            }
        }
        (Some(service), None) => validate_service(service, path, errors),
    }
}

fn validate_service(service: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let name_path = path.child("service.name");
    checks::required_form(
        &name_path,
        text_at(service, "name"),
        names::dns1123_label,
        errors,
    );
    let (name, number) = (
        text_at(service, "port.name"),
        int_at(service, "port.number").unwrap_or(0),
    );
    match (name.is_empty(), number) {
        (true, 0) => errors.push(FieldError::required(
            path,
            "port name or number is required",
        )),
        (true, number) => checks::port_number(&path.child("service.port.number"), number, errors),
        (false, 0) => {
            checks::problems(
                &path.child("service.port.name"),
                name,
                names::port_name(name),
                errors,
            );
        }
        (false, _) => {
            errors.push(FieldError::invalid(
                path,
                "",
                "cannot set both port name & port number",
            ));
        }
    }
}

pub(super) fn validate_class(class: &Value, errors: &mut Vec<FieldError>) {
    let path = Path::new("spec");
    let controller = text_at(class, "spec.controller");
    if controller.len() > CONTROLLER_BYTES_MAX {
        errors.push(FieldError::too_long(
            path.child("controller"),
            CONTROLLER_BYTES_MAX,
        ));
    }
    let problems = domain_path_problems(controller);
    if controller.is_empty() {
        errors.push(FieldError::required(path.child("controller"), ""));
    } else if let Some(problem) = problems {
        errors.push(FieldError::invalid(
            path.child("controller"),
            controller,
            problem,
        ));
    }
    let Some(parameters) = at(class, "spec.parameters") else {
        return;
    };
    let path = path.child("parameters");
    for key in ["kind", "name"] {
        let value = text_at(parameters, key);
        checks::required_form(&path.child(key), value, names::path_segment, errors);
    }
    type Form = fn(&str) -> Vec<String>;
    for (key, form) in [
        ("apiGroup", names::dns1123_subdomain as Form),
        ("namespace", names::dns1123_label),
    ] {
        let value = text_at(parameters, key);
        if !value.is_empty() {
            checks::problems(&path.child(key), value, form(value), errors);
        }
    }
    let namespace = text_at(parameters, "namespace");
    match text_at(parameters, "scope") {
        "" => errors.push(FieldError::required(path.child("scope"), "")),
        "Namespace" if namespace.is_empty() => {
            let detail = "`parameters.scope` is set to 'Namespace'";
            errors.push(FieldError::required(path.child("namespace"), detail));
        }
        "Cluster" if !namespace.is_empty() => {
            let detail = "`parameters.scope` is set to 'Cluster'";
            errors.push(FieldError::forbidden(path.child("namespace"), detail));
        }
        "Namespace" | "Cluster" => {}
        other => errors.push(FieldError::not_supported(
            path.child("scope"),
            other,
            &["Cluster", "Namespace"],
        )),
    }
}

/// `acme.io/ingress`: a domain, a slash and a path.
fn domain_path_problems(text: &str) -> Option<String> {
    match text.split_once('/') {
        Some((domain, rest)) if !domain.is_empty() && !rest.is_empty() => {
            names::dns1123_subdomain(domain).into_iter().next()
        }
        _ => Some("must be a domain-prefixed path (such as \"acme.io/foo\")".to_owned()),
    }
}
