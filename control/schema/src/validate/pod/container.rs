//! Containers, of all three lists.

use serde_json::Value;

use crate::path::Path;
use crate::value::{at, bool_at, int_at, list_at, text_at};
use crate::{FieldError, names};

use super::super::checks;
use super::{probe, resources, validate_id};

const PULL_POLICIES: &[&str] = &["Always", "IfNotPresent", "Never"];
const MESSAGE_POLICIES: &[&str] = &["FallbackToLogsOnError", "File"];
const PROPAGATIONS: &[&str] = &["Bidirectional", "HostToContainer", "None"];
const PROBES: [&str; 3] = ["livenessProbe", "readinessProbe", "startupProbe"];

/// What an environment variable may show of its pod.
const ENV_FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
/// What a reference may name at all, of a pod.
const POD_FIELDS: &[&str] = &[
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.hostNetwork",
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.phase",
    "status.podIP",
    "status.podIPs",
];

/// What a container of this list may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Main,
    Init,
    /// An init container that is restarted: a native sidecar.
    Sidecar,
}

pub(super) fn validate_all(
    spec: &Value,
    path: &Path,
    volumes: &[&str],
    errors: &mut Vec<FieldError>,
) {
    let mut seen: Vec<&str> = Vec::new();
    let main = list_at(spec, "containers");
    let path_of = |list: &str, index: usize| path.child(list).index(index);
    if main.is_empty() {
        errors.push(FieldError::required(path.child("containers"), ""));
    }
    for (index, container) in main.iter().enumerate() {
        let path = path_of("containers", index);
        checks::unique(
            &path.child("name"),
            text_at(container, "name"),
            &mut seen,
            errors,
        );
        validate(container, Role::Main, spec, volumes, &path, errors);
    }
    for (index, container) in list_at(spec, "initContainers").iter().enumerate() {
        let path = path_of("initContainers", index);
        checks::unique(
            &path.child("name"),
            text_at(container, "name"),
            &mut seen,
            errors,
        );
        let role = match text_at(container, "restartPolicy") {
            "Always" => Role::Sidecar,
            _ => Role::Init,
        };
        validate(container, role, spec, volumes, &path, errors);
    }
}

fn validate(
    container: &Value,
    role: Role,
    spec: &Value,
    volumes: &[&str],
    path: &Path,
    errors: &mut Vec<FieldError>,
) {
    let word = |key: &str| text_at(container, key);
    checks::required_form(
        &path.child("name"),
        word("name"),
        names::dns1123_label,
        errors,
    );
    let image = word("image");
    if image.is_empty() {
        errors.push(FieldError::required(path.child("image"), ""));
    } else if image.trim() != image {
        let detail = "must not have leading or trailing whitespace";
        errors.push(FieldError::invalid(path.child("image"), image, detail));
    }
    for (key, allowed) in [
        ("imagePullPolicy", PULL_POLICIES),
        ("terminationMessagePolicy", MESSAGE_POLICIES),
    ] {
        checks::one_of(&path.child(key), word(key), allowed, true, errors);
    }
    validate_role(container, role, path, errors);
    validate_ports(container, spec, path, errors);
    validate_environment(container, path, errors);
    validate_mounts(container, volumes, path, errors);
    for key in PROBES {
        if let Some(found) = at(container, key) {
            probe::validate(found, key, &path.child(key), errors);
        }
    }
    for hook in ["postStart", "preStop"] {
        if let Some(handler) = at(container, &format!("lifecycle.{hook}")) {
            probe::validate_handler(handler, &path.child("lifecycle").child(hook), errors);
        }
    }
    resources::validate(container, &path.child("resources"), errors);
    validate_security(container, path, errors);
}

/// Which fields make sense in which list.
fn validate_role(container: &Value, role: Role, path: &Path, errors: &mut Vec<FieldError>) {
    let restart_policy = text_at(container, "restartPolicy");
    match role {
        Role::Sidecar => {}
        Role::Main => {
            if !matches!(restart_policy, "" | "Always" | "OnFailure" | "Never") {
                let allowed = &["Always", "Never", "OnFailure"];
                let path = path.child("restartPolicy");
                errors.push(FieldError::not_supported(path, restart_policy, allowed));
            }
        }
        Role::Init => {
            if !matches!(restart_policy, "" | "OnFailure" | "Never") {
                let path = path.child("restartPolicy");
                errors.push(FieldError::not_supported(
                    path,
                    restart_policy,
                    &["Always", "Never", "OnFailure"],
                ));
            }
            for key in PROBES.iter().chain(&["lifecycle"]) {
                if at(container, key).is_some() {
                    let detail = "may not be set for init containers without restartPolicy=Always";
                    errors.push(FieldError::forbidden(path.child(key), detail));
                }
            }
        }
    }
}

fn validate_ports(container: &Value, spec: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let host_network = bool_at(spec, "hostNetwork");
    let mut seen: Vec<&str> = Vec::new();
    for (index, port) in list_at(container, "ports").iter().enumerate() {
        let path = path.child("ports").index(index);
        let name = text_at(port, "name");
        if !name.is_empty() {
            let problems = names::port_name(name);
            if problems.is_empty() {
                checks::unique(&path.child("name"), name, &mut seen, errors);
            }
            checks::problems(&path.child("name"), name, problems, errors);
        }
        let number = int_at(port, "containerPort").unwrap_or(0);
        if number == 0 {
            errors.push(FieldError::required(path.child("containerPort"), ""));
        } else {
            checks::port_number(&path.child("containerPort"), number, errors);
        }
        let host_port = int_at(port, "hostPort").unwrap_or(0);
        if host_port != 0 {
            checks::port_number(&path.child("hostPort"), host_port, errors);
            if host_network && host_port != number {
                let detail = "must match `containerPort` when `hostNetwork` is true";
                errors.push(FieldError::invalid(
                    path.child("hostPort"),
                    host_port,
                    detail,
                ));
            }
        }
        checks::one_of(
            &path.child("protocol"),
            text_at(port, "protocol"),
            checks::PROTOCOLS,
            true,
            errors,
        );
    }
}

fn validate_environment(container: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    for (index, variable) in list_at(container, "env").iter().enumerate() {
        let path = path.child("env").index(index);
        checks::required_form(
            &path.child("name"),
            text_at(variable, "name"),
            names::env_name,
            errors,
        );
        if let Some(source) = at(variable, "valueFrom") {
            validate_source(
                source,
                !text_at(variable, "value").is_empty(),
                &path.child("valueFrom"),
                errors,
            );
        }
    }
    for (index, source) in list_at(container, "envFrom").iter().enumerate() {
        let path = path.child("envFrom").index(index);
        let found: Vec<&str> = ["configMapRef", "secretRef"]
            .into_iter()
            .filter(|key| at(source, key).is_some())
            .collect();
        match found.as_slice() {
            [] => errors.push(FieldError::invalid(
                &path,
                "",
                "must specify one of: `configMapRef` or `secretRef`",
            )),
            [key] => {
                if text_at(source, &format!("{key}.name")).is_empty() {
                    errors.push(FieldError::required(path.child(key).child("name"), ""));
                }
            }
            _ => errors.push(FieldError::invalid(
                &path,
                "",
                "may not have more than one field specified at a time",
            )),
        }
    }
}

fn validate_source(source: &Value, has_value: bool, path: &Path, errors: &mut Vec<FieldError>) {
    let kinds = [
        "fieldRef",
        "resourceFieldRef",
        "configMapKeyRef",
        "secretKeyRef",
        "fileKeyRef",
    ];
    let found = kinds.iter().filter(|key| at(source, key).is_some()).count();
    match found {
        0 => errors.push(FieldError::invalid(
            path,
            "",
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
        )),
        _ if has_value => errors.push(FieldError::invalid(path, "", "may not be specified when `value` is not empty")),
        1 => {}
        _ => errors.push(FieldError::invalid(path, "", "may not have more than one field specified at a time")),
    }
    for key in ["configMapKeyRef", "secretKeyRef"] {
        let Some(reference) = at(source, key) else {
            continue;
        };
        let path = path.child(key);
        let name = text_at(reference, "name");
        checks::required_form(&path.child("name"), name, names::dns1123_subdomain, errors);
        checks::required_form(
            &path.child("key"),
            text_at(reference, "key"),
            names::config_key,
            errors,
        );
    }
    if let Some(reference) = at(source, "fieldRef") {
        validate_field_ref(reference, ENV_FIELDS, &path.child("fieldRef"), errors);
    }
    if let Some(reference) = at(source, "resourceFieldRef")
        && text_at(reference, "resource").is_empty()
    {
        errors.push(FieldError::required(
            path.child("resourceFieldRef").child("resource"),
            "",
        ));
    }
}

/// A field of the pod, or one label or annotation of it: `metadata.labels['a']`.
pub(super) fn validate_field_ref(
    reference: &Value,
    allowed: &[&str],
    path: &Path,
    errors: &mut Vec<FieldError>,
) {
    let field_path = path.child("fieldPath");
    let field = text_at(reference, "fieldPath");
    if field.is_empty() {
        errors.push(FieldError::required(field_path, ""));
        return;
    }
    if let Some((map, key)) = field
        .split_once("['")
        .and_then(|(map, rest)| Some((map, rest.strip_suffix("']")?)))
    {
        if !matches!(map, "metadata.labels" | "metadata.annotations") {
            errors.push(FieldError::invalid(
                path,
                field,
                "does not support subscript",
            ));
        } else {
            checks::problems(
                path,
                key,
                names::qualified_name(&key.to_lowercase()),
                errors,
            );
        }
    } else if !POD_FIELDS.contains(&field) {
        let detail = format!("error converting fieldPath: field label not supported: {field}");
        errors.push(FieldError::invalid(field_path, field, detail));
    } else if !allowed.contains(&field) {
        errors.push(FieldError::not_supported(field_path, field, allowed));
    }
}

fn validate_mounts(container: &Value, volumes: &[&str], path: &Path, errors: &mut Vec<FieldError>) {
    let mut mounted: Vec<&str> = Vec::new();
    // The real server names no mount where a path inside a volume is wrong.
    let mounts = path.child("volumeMounts");
    for (index, mount) in list_at(container, "volumeMounts").iter().enumerate() {
        let path = mounts.index(index);
        let name = text_at(mount, "name");
        if name.is_empty() {
            errors.push(FieldError::required(path.child("name"), ""));
        }
        if !volumes.contains(&name) {
            errors.push(FieldError::not_found(path.child("name"), name));
        }
        let mount_path = text_at(mount, "mountPath");
        if mount_path.is_empty() {
            errors.push(FieldError::required(path.child("mountPath"), ""));
        }
        if mounted.contains(&mount_path) {
            errors.push(FieldError::invalid(
                path.child("mountPath"),
                mount_path,
                "must be unique",
            ));
        }
        mounted.push(mount_path);
        let (sub_path, expression) = (text_at(mount, "subPath"), text_at(mount, "subPathExpr"));
        for (key, value) in [("subPath", sub_path), ("subPathExpr", expression)] {
            if !value.is_empty() {
                validate_descending(value, &mounts.child(key), errors);
            }
        }
        if !sub_path.is_empty() && !expression.is_empty() {
            let detail = "subPathExpr and subPath are mutually exclusive";
            errors.push(FieldError::invalid(
                path.child("subPathExpr"),
                expression,
                detail,
            ));
        }
        let propagation = text_at(mount, "mountPropagation");
        checks::one_of(
            &path.child("mountPropagation"),
            propagation,
            PROPAGATIONS,
            false,
            errors,
        );
    }
}

/// A path that stays below where it starts.
pub(super) fn validate_descending(value: &str, path: &Path, errors: &mut Vec<FieldError>) {
    if value.starts_with('/') {
        errors.push(FieldError::invalid(path, value, "must be a relative path"));
    }
    if value.split('/').any(|part| part == "..") {
        errors.push(FieldError::invalid(path, value, "must not contain '..'"));
    }
}

fn validate_security(container: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let Some(context) = at(container, "securityContext") else {
        return;
    };
    let path = path.child("securityContext");
    for key in ["runAsUser", "runAsGroup"] {
        validate_id(context, key, &path, errors);
    }
    let escalation = at(context, "allowPrivilegeEscalation").and_then(Value::as_bool);
    if escalation == Some(false) && bool_at(context, "privileged") {
        let detail = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
        errors.push(FieldError::invalid(&path, context.clone(), detail));
    }
}
