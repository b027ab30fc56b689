//! Volumes of a pod.

use serde_json::Value;

use crate::path::Path;
use crate::quantity::Quantity;
use crate::value::{at, int_at, list_at, text_at};
use crate::{FieldError, names};

use super::super::checks;
use super::container::{validate_descending, validate_field_ref};

/// File modes go up to 0777.
const MODE_MAX: i64 = 511;
const HOST_PATH_TYPES: &[&str] = &[
    "BlockDevice",
    "CharDevice",
    "Directory",
    "DirectoryOrCreate",
    "File",
    "FileOrCreate",
    "Socket",
];
/// What a file of the downward API may show.
const VOLUME_FIELDS: &[&str] = &[
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
];
/// A token that lives shorter could not be renewed in time, one that lives longer is no short-lived token.
const TOKEN_SECONDS_MIN: i64 = 600;
const TOKEN_SECONDS_MAX: i64 = 1 << 32;

/// Checks the volumes; returns the names that mounts may use.
pub(super) fn validate_all<'s>(
    spec: &'s Value,
    path: &Path,
    errors: &mut Vec<FieldError>,
) -> Vec<&'s str> {
    let (mut seen, mut usable): (Vec<&str>, Vec<&str>) = (Vec::new(), Vec::new());
    for (index, volume) in list_at(spec, "volumes").iter().enumerate() {
        let path = path.child("volumes").index(index);
        let name = text_at(volume, "name");
        let errors_before = errors.len();
        checks::required_form(&path.child("name"), name, names::dns1123_label, errors);
        checks::unique(&path.child("name"), name, &mut seen, errors);
        validate_source(volume, &path, errors);
        if errors.len() == errors_before {
            usable.push(name);
        }
    }
    usable
}

fn validate_source(volume: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let sources = volume.as_object().into_iter().flatten();
    let mut sources = sources.filter(|(key, source)| *key != "name" && !source.is_null());
    let Some((kind, source)) = sources.next() else {
        errors.push(FieldError::required(path, "must specify a volume type"));
        return;
    };
    for (other, _) in sources {
        let detail = "may not specify more than 1 volume type";
        errors.push(FieldError::forbidden(path.child(other), detail));
    }
    let path = path.child(kind);
    match kind.as_str() {
        "secret" => {
            required(source, "secretName", &path, errors);
            validate_items(source, &path, errors);
        }
        "configMap" => {
            required(source, "name", &path, errors);
            validate_items(source, &path, errors);
        }
        "emptyDir" => {
            let limit = Quantity::parse(text_at(source, "sizeLimit"));
            if limit.is_ok_and(|limit| limit.is_negative()) {
                let detail = "SizeLimit field must be a valid resource quantity";
                errors.push(FieldError::forbidden(path.child("sizeLimit"), detail));
            }
        }
        "hostPath" => validate_host_path(source, &path, errors),
        "downwardAPI" => {
            validate_mode(source, "defaultMode", &path, errors);
            validate_downward_items(source, &path, true, errors);
        }
        "projected" => validate_projected(source, &path, errors),
        "persistentVolumeClaim" => required(source, "claimName", &path, errors),
        "nfs" => {
            for key in ["server", "path"] {
                required(source, key, &path, errors);
            }
        }
        "csi" => required(source, "driver", &path, errors),
        _ => {}
    }
}

fn required(source: &Value, key: &str, path: &Path, errors: &mut Vec<FieldError>) {
    if text_at(source, key).is_empty() {
        errors.push(FieldError::required(path.child(key), ""));
    }
}

fn validate_mode(source: &Value, key: &str, path: &Path, errors: &mut Vec<FieldError>) {
    if let Some(mode) = int_at(source, key)
        && !(0..=MODE_MAX).contains(&mode)
    {
        let detail = "must be a number between 0 and 0777 (octal), both inclusive";
        errors.push(FieldError::invalid(path.child(key), mode, detail));
    }
}

/// Keys of a ConfigMap or Secret and the files they become.
fn validate_items(source: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    validate_mode(source, "defaultMode", path, errors);
    for (index, item) in list_at(source, "items").iter().enumerate() {
        let path = path.child("items").index(index);
        required(item, "key", &path, errors);
        required(item, "path", &path, errors);
        validate_file(text_at(item, "path"), &path.child("path"), errors);
        validate_mode(item, "mode", &path, errors);
    }
}

fn validate_file(file: &str, path: &Path, errors: &mut Vec<FieldError>) {
    validate_descending(file, path, errors);
    if file.starts_with("..") && !file.starts_with("../") {
        errors.push(FieldError::invalid(path, file, "must not start with '..'"));
    }
}

fn validate_host_path(source: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    required(source, "path", path, errors);
    let host_path = text_at(source, "path");
    if host_path.split('/').any(|part| part == "..") {
        errors.push(FieldError::invalid(
            path.child("path"),
            host_path,
            "must not contain '..'",
        ));
    }
    let kind = text_at(source, "type");
    checks::one_of(&path.child("type"), kind, HOST_PATH_TYPES, false, errors);
}

fn validate_downward_items(
    source: &Value,
    path: &Path,
    indexed: bool,
    errors: &mut Vec<FieldError>,
) {
    for (index, item) in list_at(source, "items").iter().enumerate() {
        // Inside of projected volumes the real server names no item.
        let path = if indexed {
            path.child("items").index(index)
        } else {
            path.clone()
        };
        required(item, "path", &path, errors);
        validate_file(text_at(item, "path"), &path.child("path"), errors);
        match (at(item, "fieldRef"), at(item, "resourceFieldRef")) {
            (None, None) => {
                let detail = "one of fieldRef and resourceFieldRef is required";
                errors.push(FieldError::required(&path, detail));
            }
            (Some(_), Some(_)) => {
                let detail = "fieldRef and resourceFieldRef can not be specified simultaneously";
                errors.push(FieldError::invalid(&path, "resource", detail));
            }
            (Some(reference), None) => {
                validate_field_ref(reference, VOLUME_FIELDS, &path.child("fieldRef"), errors);
            }
            (None, Some(_)) => {}
        }
        validate_mode(item, "mode", &path, errors);
    }
}

fn validate_projected(source: &Value, projected: &Path, errors: &mut Vec<FieldError>) {
    validate_mode(source, "defaultMode", projected, errors);
    let mut files: Vec<&str> = Vec::new();
    for (index, one) in list_at(source, "sources").iter().enumerate() {
        let path = projected.child("sources").index(index);
        let kinds = one
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(_, inner)| !inner.is_null());
        let kinds: Vec<&String> = kinds.map(|(kind, _)| kind).collect();
        for other in kinds.iter().skip(1) {
            let detail = "may not specify more than 1 volume type per source";
            errors.push(FieldError::forbidden(path.child(other), detail));
        }
        for kind in ["secret", "configMap"] {
            if let Some(inner) = at(one, kind) {
                required(inner, "name", &path.child(kind), errors);
                validate_items(inner, &path.child(kind), errors);
            }
        }
        if let Some(inner) = at(one, "downwardAPI") {
            validate_downward_items(inner, &path.child("downwardAPI"), false, errors);
        }
        for (file, owner) in files_of(one) {
            if files.contains(&file) {
                let detail = "conflicting duplicate paths";
                errors.push(FieldError::invalid(projected, owner, detail));
            }
            files.push(file);
        }
        if let Some(token) = at(one, "serviceAccountToken") {
            required(token, "path", projected, errors);
            validate_token(token, &path.child("serviceAccountToken"), errors);
        }
    }
}

/// The files that a source makes, each with the name that a conflict is reported by.
fn files_of(source: &Value) -> Vec<(&str, &str)> {
    let mut files = Vec::new();
    for kind in ["secret", "configMap", "downwardAPI"] {
        let Some(inner) = at(source, kind) else {
            continue;
        };
        for item in list_at(inner, "items") {
            let file = text_at(item, "path");
            let owner = if kind == "downwardAPI" {
                file
            } else {
                text_at(inner, "name")
            };
            files.push((file, owner));
        }
    }
    if let Some(token) = at(source, "serviceAccountToken") {
        files.push((text_at(token, "path"), text_at(token, "path")));
    }
    files.retain(|(file, _)| !file.is_empty());
    files
}

fn validate_token(token: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    validate_file(text_at(token, "path"), &path.child("path"), errors);
    let Some(seconds) = int_at(token, "expirationSeconds") else {
        return;
    };
    let path = path.child("expirationSeconds");
    if seconds < TOKEN_SECONDS_MIN {
        let detail = "may not specify a duration less than 10 minutes";
        errors.push(FieldError::invalid(path, seconds, detail));
    } else if seconds > TOKEN_SECONDS_MAX {
        let detail = "may not specify a duration larger than 2^32 seconds";
        errors.push(FieldError::invalid(path, seconds, detail));
    }
}
