mod access;
mod configuration;
mod metadata;
mod network;
mod nodes;
mod pods;
mod updates;
mod valid;
mod webhooks;
mod workloads;

use valid::object;

use super::*;
use crate::FieldValidation;

/// Puts a value at a JSON pointer of a valid object (null removes) and lists what is then wrong.
#[track_caller]
fn check(plural: &str, pointer: &str, value: Value, want: &[&str]) {
    let (registry, group, mut object) = object(plural);
    put(&mut object, pointer, value);
    let kind = registry.resource(group, "v1", plural).unwrap();
    let mut object = kind
        .decode_value(object, FieldValidation::Strict)
        .unwrap()
        .object;
    kind.default(&mut object);
    let found: Vec<String> = kind
        .validate_create(&object)
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(found, want, "{plural} {pointer}");
}

fn put(object: &mut Value, pointer: &str, value: Value) {
    if pointer.is_empty() {
        return;
    }
    let (parent, last) = pointer.rsplit_once('/').unwrap();
    let mut slot = object;
    for key in parent.split('/').skip(1) {
        slot = match key.parse::<usize>() {
            Ok(index) if slot.is_array() => &mut slot[index],
            _ => &mut slot[key],
        };
    }
    match (last.parse::<usize>(), slot.as_array_mut()) {
        (Ok(index), Some(list)) if index >= list.len() => list.push(value),
        (Ok(index), Some(list)) => list[index] = value,
        _ => slot[last] = value,
    }
}

#[test]
fn valid_objects_are_valid() {
    for plural in [
        "pods",
        "deployments",
        "services",
        "ingresses",
        "ingressclasses",
        "configmaps",
        "secrets",
        "roles",
        "rolebindings",
        "clusterrolebindings",
        "nodes",
        "leases",
        "endpointslices",
        "events",
        "mutatingwebhookconfigurations",
        "namespaces",
    ] {
        check(plural, "", Value::Null, &[]);
    }
}
