//! Namespaces: objects are created in ones that exist and are not on their way out.

use meshgate_schema::Failure;
use serde_json::{Value, json};

use crate::objects::{meta, metadata_mut};
use crate::server::Call;
use crate::write::metadata::is_terminating;

const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// Refuses a creation in a namespace that is missing or terminating.
pub(super) fn check(call: &Call, object: &Value) -> Result<(), Failure> {
    if !call.kind.namespaced() || call.path.namespace.is_empty() {
        return Ok(());
    }
    let name = &call.path.namespace;
    let Some(namespace) = call.server.find("", "namespaces", "", name) else {
        return Err(Failure::not_found("", "namespaces", name));
    };
    if !is_terminating(&namespace) {
        return Ok(());
    }
    let problem =
        format!("unable to create new content in namespace {name} because it is being terminated");
    let mut failure = Failure::forbidden(
        call.kind.group(),
        call.kind.plural(),
        meta(object, "name"),
        &problem,
    );
    if let Some(details) = &mut failure.details {
        details["causes"] = json!([{
            "reason": "NamespaceTerminating",
            "message": format!("namespace {name} is being terminated"),
            "field": "metadata.namespace",
        }]);
    }
    Err(failure)
}

/// What every Namespace carries: its name as a label, for selectors, and the finalizer that empties it.
pub(super) fn complete(namespace: &mut Value) {
    let name = meta(namespace, "name").to_owned();
    if !name.is_empty() {
        let labels = metadata_mut(namespace)
            .entry("labels")
            .or_insert_with(|| json!({}));
        if let Some(labels) = labels.as_object_mut() {
            labels.insert(NAME_LABEL.into(), name.into());
        }
    }
    if let Some(fields) = namespace.as_object_mut() {
        let spec = fields.entry("spec").or_insert_with(|| json!({}));
        if let Some(spec) = spec.as_object_mut() {
            let finalizers = spec.entry("finalizers").or_insert_with(|| json!([]));
            if let Some(list) = finalizers.as_array_mut()
                && !list.iter().any(|finalizer| finalizer == "kubernetes")
            {
                list.push("kubernetes".into());
            }
        }
    }
}
