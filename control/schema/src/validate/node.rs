//! Nodes, leases, namespaces, events and bindings: the objects with which the cluster runs itself.

use serde_json::Value;

use crate::path::Path;
use crate::value::{at, int_at, list_at, text_at};
use crate::{FieldError, names};

use super::checks;

const EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];
const NOTE_BYTES_MAX: usize = 1024;

pub(super) fn validate(node: &Value, errors: &mut Vec<FieldError>) {
    // The real server's path, although taints are in the spec.
    let path = Path::new("metadata.taints");
    let mut seen: Vec<(&str, &str)> = Vec::new();
    for (index, taint) in list_at(node, "spec.taints").iter().enumerate() {
        let path = path.index(index);
        let (key, value) = (text_at(taint, "key"), text_at(taint, "value"));
        checks::problems(&path.child("key"), key, names::qualified_name(key), errors);
        let problems = names::label_value(value);
        if !problems.is_empty() {
            errors.push(FieldError::invalid(
                path.child("value"),
                value,
                problems.join(";"),
            ));
        }
        let effect = text_at(taint, "effect");
        checks::one_of(&path.child("effect"), effect, EFFECTS, true, errors);
        if seen.contains(&(key, effect)) {
            let mut error = FieldError::duplicate(&path, taint.clone());
            error.detail = "taints must be unique by key and effect pair".to_owned();
            errors.push(error);
        }
        seen.push((key, effect));
    }
    for (index, range) in list_at(node, "spec.podCIDRs")
        .iter()
        .filter_map(Value::as_str)
        .enumerate()
    {
        checks::cidr(&Path::new("spec.podCIDRs").index(index), range, errors);
    }
    let ranges = list_at(node, "spec.podCIDRs");
    checks::one_per_family(&Path::new("spec.podCIDRs"), ranges, "CIDR", errors);
}

/// What was given to a node once stays with it.
pub(super) fn validate_update(new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
    let before = list_at(old, "spec.podCIDRs");
    if !before.is_empty() && before != list_at(new, "spec.podCIDRs") {
        let detail = "node updates may not change podCIDR except from \"\" to valid";
        errors.push(FieldError::forbidden("spec.podCIDRs", detail));
    }
    let provider = text_at(old, "spec.providerID");
    if !provider.is_empty() && provider != text_at(new, "spec.providerID") {
        let detail = "node updates may not change providerID except from \"\" to valid";
        errors.push(FieldError::forbidden("spec.providerID", detail));
    }
}

pub(super) fn validate_lease(lease: &Value, errors: &mut Vec<FieldError>) {
    if let Some(seconds) =
        int_at(lease, "spec.leaseDurationSeconds").filter(|seconds| *seconds <= 0)
    {
        let detail = "must be greater than 0";
        errors.push(FieldError::invalid(
            "spec.leaseDurationSeconds",
            seconds,
            detail,
        ));
    }
    checks::not_negative(lease, "spec.leaseTransitions", errors);
    if at(lease, "spec.preferredHolder").is_some() && at(lease, "spec.strategy").is_none() {
        let detail = "may only be specified if `strategy` is defined";
        errors.push(FieldError::forbidden("spec.preferredHolder", detail));
    }
}

pub(super) fn validate_namespace_status(namespace: &Value, errors: &mut Vec<FieldError>) {
    let phase = text_at(namespace, "status.phase");
    let deleted = at(namespace, "metadata.deletionTimestamp").is_some();
    let detail = match (deleted, phase) {
        (false, "Active") | (true, "Terminating") => return,
        (false, _) => "may only be 'Active' if `deletionTimestamp` is empty",
        (true, _) => "may only be 'Terminating' if `deletionTimestamp` is not empty",
    };
    errors.push(FieldError::invalid("status.Phase", phase, detail));
}

/// An event is in the namespace of what it is about; of what has none, in `default` or `kube-system`.
pub(super) fn validate_event(event: &Value, errors: &mut Vec<FieldError>) {
    let namespace = text_at(event, "metadata.namespace");
    let (field, subject) = match at(event, "regarding") {
        Some(subject) => ("regarding.namespace", subject),
        None => match at(event, "involvedObject") {
            Some(subject) => ("involvedObject.namespace", subject),
            None => return,
        },
    };
    let about = text_at(subject, "namespace");
    let fits = if about.is_empty() {
        matches!(namespace, "default" | "kube-system")
    } else {
        about == namespace
    };
    if !fits {
        errors.push(FieldError::invalid(
            field,
            about,
            "does not match event.namespace",
        ));
    }
    let note = text_at(event, "note");
    if note.len() > NOTE_BYTES_MAX {
        let detail = format!("can have at most {NOTE_BYTES_MAX} characters");
        errors.push(FieldError::invalid("note", "", detail));
    }
}

pub(super) fn validate_pod_binding(binding: &Value, errors: &mut Vec<FieldError>) {
    let kind = text_at(binding, "target.kind");
    if !matches!(kind, "" | "Node") {
        errors.push(FieldError::not_supported(
            "target.kind",
            kind,
            &["Node", "<empty>"],
        ));
    }
    if text_at(binding, "target.name").is_empty() {
        errors.push(FieldError::required("target.name", ""));
    }
}
