//! Object metadata: names, labels, annotations, owners, finalizers.

use serde_json::Value;

use crate::path::Path;
use crate::value::{at, bool_at, list_at, map_at, text_at};
use crate::{FieldError, names};

use super::checks;

/// Keys and values of all annotations together, in bytes; as in Kubernetes, to keep objects small.
const ANNOTATIONS_BYTES_MAX: usize = 256 * 1024;
/// Finalizers that need no group of their own.
const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

/// What the name of a kind may look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NameForm {
    Label,
    Subdomain,
    PathSegment,
    /// Reviews have no name.
    Free,
}

impl NameForm {
    fn problems(self, name: &str) -> Vec<String> {
        match self {
            NameForm::Label => names::dns1123_label(name),
            NameForm::Subdomain => names::dns1123_subdomain(name),
            NameForm::PathSegment => names::path_segment(name),
            NameForm::Free => Vec::new(),
        }
    }
}

/// Metadata of a whole object.
pub(super) fn validate(object: &Value, namespaced: bool, form: NameForm) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let name = text_at(object, "metadata.name");
    let generate_name = text_at(object, "metadata.generateName");
    if !generate_name.is_empty() {
        // What is generated ends with letters, so the base may end with a dash.
        let sample = format!("{}a", generate_name.chars().take(57).collect::<String>());
        let path = Path::new("metadata.generateName");
        checks::problems(&path, generate_name, form.problems(&sample), &mut errors);
    }
    if name.is_empty() && form != NameForm::Free {
        errors.push(FieldError::required(
            "metadata.name",
            "name or generateName is required",
        ));
    } else if !name.is_empty() {
        checks::problems(
            &Path::new("metadata.name"),
            name,
            form.problems(name),
            &mut errors,
        );
    }
    let namespace = text_at(object, "metadata.namespace");
    if namespaced {
        let path = Path::new("metadata.namespace");
        checks::required_form(&path, namespace, names::dns1123_label, &mut errors);
    } else if !namespace.is_empty() {
        errors.push(FieldError::forbidden(
            "metadata.namespace",
            "not allowed on this type",
        ));
    }
    if let Some(metadata) = object.get("metadata") {
        validate_common(metadata, &Path::new("metadata"), &mut errors);
    }
    errors
}

/// Finalizers of built-in kinds: those without a group are a closed set.
pub(super) fn validate_finalizers(object: &Value, errors: &mut Vec<FieldError>) {
    let finalizers = list_at(object, "metadata.finalizers")
        .iter()
        .filter_map(Value::as_str);
    for (index, finalizer) in finalizers.enumerate() {
        let standard = matches!(finalizer, ORPHAN | FOREGROUND | "kubernetes");
        if !finalizer.contains('/') && !standard {
            let detail = "name is neither a standard finalizer name nor is it fully qualified";
            let path = Path::new("metadata.finalizers").index(index);
            errors.push(FieldError::invalid(path, finalizer, detail));
        }
    }
}

/// Metadata of an object inside another: everything is optional.
pub(crate) fn validate_embedded(metadata: &Value, path: &Path) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let name = text_at(metadata, "name");
    if !name.is_empty() {
        checks::problems(
            &path.child("name"),
            name,
            names::path_segment(name),
            &mut errors,
        );
    }
    validate_common(metadata, path, &mut errors);
    errors
}

/// Metadata of a template: what its pods will carry. The real server leaves `metadata` out of these paths.
pub(super) fn validate_template(metadata: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    checks::labels(metadata, "labels", &path.child("labels"), errors);
    validate_annotations(metadata, &path.child("annotations"), errors);
}

fn validate_common(metadata: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    checks::labels(metadata, "labels", &path.child("labels"), errors);
    validate_annotations(metadata, &path.child("annotations"), errors);
    validate_owners(metadata, &path.child("ownerReferences"), errors);
    let finalizers = list_at(metadata, "finalizers");
    let finalizers_path = path.child("finalizers");
    for finalizer in finalizers.iter().filter_map(Value::as_str) {
        checks::problems(
            &finalizers_path,
            finalizer,
            names::qualified_name(finalizer),
            errors,
        );
    }
    let has = |name: &str| finalizers.iter().any(|one| one == name);
    if has(ORPHAN) && has(FOREGROUND) {
        let detail = format!("finalizer {ORPHAN} and {FOREGROUND} cannot be both set");
        errors.push(FieldError::invalid(
            finalizers_path,
            finalizers.to_vec(),
            detail,
        ));
    }
}

fn validate_annotations(metadata: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let mut bytes = 0;
    for (key, value) in map_at(metadata, "annotations") {
        bytes += key.len() + value.as_str().map_or(0, str::len);
        checks::problems(
            path,
            key,
            names::qualified_name(&key.to_lowercase()),
            errors,
        );
    }
    if bytes > ANNOTATIONS_BYTES_MAX {
        errors.push(FieldError::too_long(path, ANNOTATIONS_BYTES_MAX));
    }
}

fn validate_owners(metadata: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let owners = list_at(metadata, "ownerReferences");
    let mut controller: Option<String> = None;
    for owner in owners {
        for (key, detail) in [
            ("apiVersion", "version must not be empty"),
            ("kind", "must not be empty"),
            ("name", "must not be empty"),
            ("uid", "must not be empty"),
        ] {
            if text_at(owner, key).is_empty() {
                errors.push(FieldError::invalid(path.child(key), "", detail));
            }
        }
        if text_at(owner, "apiVersion") == "v1" && text_at(owner, "kind") == "Event" {
            let detail = "/v1, Kind=Event is disallowed from being an owner";
            errors.push(FieldError::invalid(path, owner.clone(), detail));
        }
        if !bool_at(owner, "controller") {
            continue;
        }
        let this = format!("{}/{}", text_at(owner, "kind"), text_at(owner, "name"));
        match &controller {
            Some(first) => {
                let detail = format!(
                    "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {this}"
                );
                errors.push(FieldError::invalid(path, owners.to_vec(), detail));
            }
            None => controller = Some(this),
        }
    }
}

/// What an update of metadata may not do.
pub(super) fn validate_update(new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
    for key in [
        "metadata.name",
        "metadata.namespace",
        "metadata.uid",
        "metadata.creationTimestamp",
    ] {
        checks::immutable(new, old, key, errors);
    }
    if at(old, "metadata.deletionTimestamp").is_none() {
        return;
    }
    let before = list_at(old, "metadata.finalizers");
    let mut extra: Vec<String> = list_at(new, "metadata.finalizers")
        .iter()
        .filter(|finalizer| !before.contains(finalizer))
        .map(ToString::to_string)
        .collect();
    extra.sort();
    if !extra.is_empty() {
        let list = extra.join(", ");
        let detail = format!(
            "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{list}}}"
        );
        errors.push(FieldError::forbidden("metadata.finalizers", detail));
    }
}
