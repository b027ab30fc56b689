use serde_json::{Value, json};

use super::check;

#[test]
fn metadata() {
    let subdomain = crate::names::dns1123_subdomain("Bad_").remove(0);
    check(
        "configmaps",
        "/metadata/name",
        json!("Bad_"),
        &[&format!(
            "metadata.name: Invalid value: \"Bad_\": {subdomain}"
        )],
    );
    check(
        "configmaps",
        "/metadata/name",
        Value::Null,
        &["metadata.name: Required value: name or generateName is required"],
    );
    check(
        "namespaces",
        "/metadata/namespace",
        json!("ns"),
        &["metadata.namespace: Forbidden: not allowed on this type"],
    );
    let label = crate::names::label_value("-").remove(0);
    check(
        "configmaps",
        "/metadata/labels",
        json!({"a": "-"}),
        &[&format!("metadata.labels: Invalid value: \"-\": {label}")],
    );
    check(
        "configmaps",
        "/metadata/annotations",
        json!({"a": "x".repeat(262_144)}),
        &["metadata.annotations: Too long: may not be more than 262144 bytes"],
    );
    check(
        "configmaps",
        "/metadata/ownerReferences",
        json!([{"apiVersion": "v1", "kind": "Pod", "name": "p"}]),
        &["metadata.ownerReferences.uid: Invalid value: \"\": must not be empty"],
    );
}
