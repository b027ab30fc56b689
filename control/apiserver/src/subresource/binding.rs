//! Binding: a scheduler gives a pod to a node.

use std::sync::Arc;

use jiff::Timestamp;
use meshgate_schema::{Failure, FieldValidation, Media};
use serde_json::{Value, json};

use super::success;
use crate::http::options::{WriteOptions, seconds};
use crate::http::path::ResourcePath;
use crate::objects::{meta, metadata_mut};
use crate::server::{Call, Reply};
use crate::write::change::{Part, change, edited};
use crate::write::metadata::is_terminating;

/// POST of the old collection `bindings`: the pod's name is in the body.
pub(crate) async fn create_unnamed(
    call: &Call,
    body: &[u8],
    media: Media,
) -> Result<Reply, Failure> {
    let decoded =
        call.registry
            .decode_any("", "v1", "Binding", body, media, FieldValidation::Ignore)?;
    let kind = call
        .registry
        .resource("", "v1", "pods")
        .ok_or_else(Failure::no_such_resource)?;
    let named = Call {
        server: Arc::clone(&call.server),
        registry: Arc::clone(&call.registry),
        kind: Arc::clone(kind),
        user: call.user.clone(),
        path: ResourcePath {
            resource: "pods".into(),
            name: meta(&decoded.object, "name").to_owned(),
            subresource: "binding".into(),
            ..call.path.clone()
        },
        query: call.query.clone(),
        format: call.format,
    };
    create(&named, body, media).await
}

/// POST of `pods/NAME/binding`.
pub(crate) async fn create(call: &Call, body: &[u8], media: Media) -> Result<Reply, Failure> {
    let options = WriteOptions::parse(&call.query, "CreateOptions")?;
    let binding = call
        .registry
        .decode_any("", "v1", "Binding", body, media, options.validation)?
        .object;
    let name = meta(&binding, "name");
    if !name.is_empty() && name != call.path.name {
        return Err(Failure::bad_request(
            "name in URL does not match name in Binding object",
        ));
    }
    let (kind, node) = (
        binding["target"]["kind"].as_str().unwrap_or_default(),
        binding["target"]["name"].as_str(),
    );
    let Some(node) = node.filter(|node| !node.is_empty() && matches!(kind, "" | "Node")) else {
        return Err(Failure::bad_request(
            "the target of a Binding must be a Node with a name",
        ));
    };
    let (uid, version) = (meta(&binding, "uid"), meta(&binding, "resourceVersion"));
    let edit = |old: &Value| {
        check(call, old, uid, version)?;
        edited(old, |pod| {
            bind(pod, node, &binding);
            Ok(())
        })
    };
    change(call, Part::Special, options.dry_run, &edit).await?;
    Ok(Reply::created(success()))
}

fn check(call: &Call, pod: &Value, uid: &str, version: &str) -> Result<(), Failure> {
    let name = &call.path.name;
    if !uid.is_empty() && uid != meta(pod, "uid") {
        return Err(call.conflict(&format!(
            "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
            meta(pod, "uid")
        )));
    }
    if !version.is_empty() && version != meta(pod, "resourceVersion") {
        return Err(call.conflict(&format!(
            "Precondition failed: ResourceVersion in precondition: {version}, ResourceVersion in object meta: {}",
            meta(pod, "resourceVersion")
        )));
    }
    if is_terminating(pod) {
        return Err(binding_conflict(
            name,
            &format!("pod {name} is being deleted, cannot be assigned to a host"),
        ));
    }
    if let Some(node) = pod["spec"]["nodeName"]
        .as_str()
        .filter(|node| !node.is_empty())
    {
        return Err(binding_conflict(
            name,
            &format!("pod {name} is already assigned to node \"{node}\""),
        ));
    }
    if pod["spec"]["schedulingGates"]
        .as_array()
        .is_some_and(|gates| !gates.is_empty())
    {
        return Err(binding_conflict(
            name,
            &format!("pod {name} has non-empty .spec.schedulingGates"),
        ));
    }
    Ok(())
}

fn binding_conflict(name: &str, problem: &str) -> Failure {
    Failure::conflict("", "pods/binding", name, problem)
}

fn bind(pod: &mut Value, node: &str, binding: &Value) {
    pod["spec"]["nodeName"] = node.into();
    if let Some(annotations) = binding["metadata"]["annotations"].as_object() {
        let own = metadata_mut(pod)
            .entry("annotations")
            .or_insert_with(|| json!({}));
        for (name, value) in annotations {
            own[name] = value.clone();
        }
    }
    let scheduled = json!({
        "type": "PodScheduled",
        "status": "True",
        "lastProbeTime": null,
        "lastTransitionTime": seconds(Timestamp::now()),
    });
    let Some(pod) = pod.as_object_mut() else {
        return;
    };
    let status = pod.entry("status").or_insert_with(|| json!({}));
    let Some(status) = status.as_object_mut() else {
        return;
    };
    let conditions = status.entry("conditions").or_insert_with(|| json!([]));
    let Some(conditions) = conditions.as_array_mut() else {
        return;
    };
    conditions.retain(|condition| condition["type"] != "PodScheduled");
    conditions.push(scheduled);
}
