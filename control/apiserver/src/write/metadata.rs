//! The parts of `metadata` that belong to the server.

use jiff::Timestamp;
use meshgate_schema::{Failure, FieldError, Kind};
use serde_json::Value;

use crate::http::options::seconds;
use crate::objects::{meta, metadata_mut};

const NAMESPACE_MISMATCH: &str =
    "the namespace of the provided object does not match the namespace sent on the request";

/// Puts an object into the namespace of the request.
pub(crate) fn place(kind: &Kind, namespace: &str, object: &mut Value) -> Result<(), Failure> {
    let expected = if kind.namespaced() { namespace } else { "" };
    let given = meta(object, "namespace");
    if given == expected {
        if expected.is_empty() {
            metadata_mut(object).shift_remove("namespace");
        }
        return Ok(());
    }
    if !given.is_empty() {
        return Err(Failure::bad_request(NAMESPACE_MISMATCH));
    }
    metadata_mut(object).insert("namespace".into(), expected.into());
    Ok(())
}

/// Fills what the server gives to a new object, and drops what a client must not choose.
pub(crate) fn begin(kind: &Kind, object: &mut Value, now: Timestamp) {
    let generation = kind.has_generation();
    let metadata = metadata_mut(object);
    for field in [
        "resourceVersion",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "selfLink",
        "managedFields",
        "generation",
    ] {
        metadata.shift_remove(field);
    }
    metadata.insert("uid".into(), uuid::Uuid::new_v4().to_string().into());
    metadata.insert("creationTimestamp".into(), seconds(now).into());
    if generation {
        metadata.insert("generation".into(), 1.into());
    }
}

/// Carries over what an update must not change.
pub(crate) fn keep(new: &mut Value, old: &Value) {
    let old = &old["metadata"];
    let metadata = metadata_mut(new);
    for field in [
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
        "generateName",
        "namespace",
    ] {
        match old.get(field) {
            Some(value) => metadata.insert(field.into(), value.clone()),
            None => metadata.shift_remove(field),
        };
    }
    metadata.shift_remove("selfLink");
    metadata.shift_remove("managedFields");
}

/// The first step of a generation: from the second on it is counted up.
pub(crate) fn next_generation(object: &mut Value) {
    let metadata = metadata_mut(object);
    let generation = metadata
        .get("generation")
        .and_then(Value::as_i64)
        .unwrap_or(0);
    metadata.insert("generation".into(), (generation + 1).into());
}

/// The revision that a client's object claims to be based on; `None`: it does not say.
pub(crate) fn claimed_revision(object: &Value) -> Result<Option<u64>, Failure> {
    match meta(object, "resourceVersion") {
        "" | "0" => Ok(None),
        text => text.parse().map(Some).map_err(|_| {
            Failure::bad_request(format!(
                "metadata.resourceVersion: Invalid value: {text:?}: must be the resourceVersion of a stored object"
            ))
        }),
    }
}

/// The failure of an update that must name a revision and does not.
pub(crate) fn revision_required(kind: &Kind, name: &str) -> Failure {
    let error = FieldError::invalid(
        "metadata.resourceVersion",
        0,
        "must be specified for an update",
    );
    // Kubernetes names the resource here, not the kind.
    Failure::invalid(kind.group(), kind.plural(), name, &[error])
}

/// Whether a deletion was begun.
pub(crate) fn is_terminating(object: &Value) -> bool {
    !meta(object, "deletionTimestamp").is_empty()
}

/// `metadata.finalizers`.
pub(crate) fn finalizers(object: &Value) -> Vec<String> {
    let list = object["metadata"]["finalizers"]
        .as_array()
        .into_iter()
        .flatten();
    list.filter_map(Value::as_str).map(str::to_owned).collect()
}
