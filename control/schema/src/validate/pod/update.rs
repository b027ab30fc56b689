//! What may change in a pod that is there: images, deadlines that shrink, tolerations that are added.

use serde_json::{Map, Value};

use crate::FieldError;
use crate::value::{at, int_at, list_at, list_at_mut, object_at_mut};

const MUTABLE: &str = "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

pub(crate) fn validate_update(new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
    for list in ["containers", "initContainers"] {
        let path = format!("spec.{list}");
        if list_at(new, &path).len() != list_at(old, &path).len() {
            let detail = "pod updates may not add or remove containers";
            errors.push(FieldError::forbidden(path, detail));
            return;
        }
    }
    validate_deadline(new, old, errors);
    validate_tolerations(new, old, errors);
    if comparable(new, old) != at(old, "spec").cloned() {
        let detail = format!(
            "pod updates may not change fields other than {MUTABLE}\n{}",
            difference(new, old)
        );
        errors.push(FieldError::forbidden("spec", detail));
    }
}

fn validate_deadline(new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
    const PATH: &str = "spec.activeDeadlineSeconds";
    match (int_at(new, PATH), int_at(old, PATH)) {
        (Some(now), Some(before)) if now > before => {
            let detail = "must be less than or equal to previous value";
            errors.push(FieldError::invalid(PATH, now, detail));
        }
        (None, Some(_)) => {
            let detail = "must not update from a positive integer to nil value";
            errors.push(FieldError::invalid(PATH, Value::Null, detail));
        }
        _ => {}
    }
}

fn validate_tolerations(new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
    const PATH: &str = "spec.tolerations";
    let kept = |one: &Value| {
        list_at(new, PATH).iter().any(|other| {
            // Only how long something is tolerated may change.
            ["key", "operator", "value", "effect"]
                .iter()
                .all(|key| at(one, key) == at(other, key))
        })
    };
    if !list_at(old, PATH).iter().all(kept) {
        let detail = "existing toleration can not be modified except its tolerationSeconds";
        errors.push(FieldError::forbidden(PATH, detail));
    }
}

/// The new spec with everything that may change as it was.
fn comparable(new: &Value, old: &Value) -> Option<Value> {
    let mut new = new.clone();
    for list in ["spec.containers", "spec.initContainers"] {
        let images: Vec<Option<Value>> = list_at(old, list)
            .iter()
            .map(|container| at(container, "image").cloned())
            .collect();
        for (container, image) in list_at_mut(&mut new, list).iter_mut().zip(images) {
            if let Some(container) = container.as_object_mut() {
                restore(container, "image", image);
            }
        }
    }
    let spec = object_at_mut(&mut new, "spec")?;
    for key in ["activeDeadlineSeconds", "tolerations"] {
        restore(spec, key, at(old, &format!("spec.{key}")).cloned());
    }
    let before = int_at(old, "spec.terminationGracePeriodSeconds");
    let now = spec
        .get("terminationGracePeriodSeconds")
        .and_then(Value::as_i64);
    if before.is_some_and(|before| before < 0) && now == Some(1) {
        restore(
            spec,
            "terminationGracePeriodSeconds",
            before.map(Value::from),
        );
    }
    // Gates are only ever taken away.
    let gates = list_at(old, "spec.schedulingGates");
    let fewer = spec
        .get("schedulingGates")
        .and_then(Value::as_array)
        .is_none_or(|now| now.iter().all(|gate| gates.contains(gate)));
    if fewer {
        restore(
            spec,
            "schedulingGates",
            at(old, "spec.schedulingGates").cloned(),
        );
    }
    at(&new, "spec").cloned()
}

fn restore(map: &mut Map<String, Value>, key: &str, value: Option<Value>) {
    match value {
        Some(value) => {
            map.insert(key.to_owned(), value);
        }
        None => {
            map.shift_remove(key);
        }
    }
}

/// Which fields of the spec changed that may not, for the message.
fn difference(new: &Value, old: &Value) -> String {
    let changed = comparable(new, old).unwrap_or_default();
    let old = at(old, "spec").cloned().unwrap_or_default();
    let keys = changed
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, _)| key);
    let old_keys = old.as_object().into_iter().flatten().map(|(key, _)| key);
    let mut keys: Vec<&String> = keys
        .chain(old_keys)
        .filter(|key| changed.get(*key) != old.get(*key))
        .collect();
    keys.sort();
    keys.dedup();
    let lines: Vec<String> = keys
        .into_iter()
        .map(|key| {
            let shown = |from: &Value| from.get(key).map_or("null".to_owned(), Value::to_string);
            format!("  {key}:\n-   {}\n+   {}", shown(&old), shown(&changed))
        })
        .collect();
    lines.join("\n")
}
