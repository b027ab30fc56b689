use serde_json::{Value, json};

use super::put;
use super::valid::object;
use crate::FieldValidation;

/// What an update may not do: a pointer and a value in a valid object, and the field that is named.
#[track_caller]
fn check_update(plural: &str, pointer: &str, value: Value, want: &str) {
    let (registry, group, old) = object(plural);
    let kind = registry.resource(group, "v1", plural).unwrap();
    let mut new = old.clone();
    put(&mut new, pointer, value);
    let stored = |object: Value| {
        let mut object = kind
            .decode_value(object, FieldValidation::Strict)
            .unwrap()
            .object;
        kind.default(&mut object);
        object
    };
    let (mut new, old) = (stored(new), stored(old));
    kind.prepare_update(&mut new, &old);
    let found = kind.validate_update(&new, &old);
    let fields: Vec<&str> = found.iter().map(|error| error.field.as_str()).collect();
    let wanted: Vec<&str> = if want.is_empty() {
        Vec::new()
    } else {
        vec![want]
    };
    assert_eq!(fields, wanted, "{plural} {pointer}: {found:?}");
}

#[test]
fn updates() {
    check_update("pods", "/spec/containers/0/image", json!("j"), "");
    check_update("pods", "/spec/containers/0/command", json!(["x"]), "spec");
    check_update("pods", "/spec/nodeName", json!("n"), "spec");
    check_update(
        "pods",
        "/spec/tolerations",
        json!([{"key": "a", "operator": "Exists"}]),
        "",
    );
    check_update(
        "pods",
        "/spec/containers/1",
        json!({"name": "d", "image": "i"}),
        "spec.containers",
    );
    check_update("pods", "/metadata/labels", json!({"a": "b"}), "");
    check_update(
        "deployments",
        "/spec/template/spec/containers/0/image",
        json!("j"),
        "",
    );
    check_update("deployments", "/metadata/uid", json!("u"), "metadata.uid");
    check_update(
        "services",
        "/spec/clusterIP",
        json!("10.0.0.2"),
        "spec.clusterIPs[0]",
    );
    check_update("services", "/spec/clusterIP", Value::Null, "");
    check_update("rolebindings", "/roleRef/name", json!("s"), "roleRef");
    check_update(
        "ingressclasses",
        "/spec/controller",
        json!("a.test/d"),
        "spec.controller",
    );
    check_update(
        "nodes",
        "/spec/podCIDRs",
        json!(["10.0.1.0/24"]),
        "spec.podCIDRs",
    );
    check_update("secrets", "/type", json!("example.test/other"), "type");
}

#[test]
fn immutable_data() {
    let (registry, group, mut old) = object("configmaps");
    let kind = registry.resource(group, "v1", "configmaps").unwrap();
    old["immutable"] = true.into();
    let mut new = old.clone();
    new["data"] = json!({"a": "c"});
    let found = kind.validate_update(&new, &old);
    assert_eq!(
        found[0].to_string(),
        "data: Forbidden: field is immutable when `immutable` is set"
    );
}
