use serde_json::json;

use super::*;
use crate::decode::convert;
use crate::{FieldValidation, Media};

fn round_trip(object: Value) {
    let registry = Registry::builtin();
    let bytes = registry
        .encode_protobuf(&object)
        .expect("has a protobuf form");
    let (group, version) = split_api_version(object["apiVersion"].as_str().unwrap());
    let kind = registry
        .by_kind(group, version, object["kind"].as_str().unwrap())
        .unwrap();
    let back = kind
        .decode(&registry, &bytes, Media::Protobuf, FieldValidation::Strict)
        .unwrap();
    let straight = kind.decode_value(object, FieldValidation::Strict).unwrap();
    assert_eq!(back, straight);
}

#[test]
fn objects_survive_both_ways() {
    round_trip(
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "labels": {"x": "y"},
        "creationTimestamp": "2024-01-02T03:04:05Z"}, "data": {"k": "v"}, "binaryData": {"b": "AAEC"}}),
    );
    round_trip(
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {
        "volumes": [{"name": "v", "configMap": {"name": "c", "defaultMode": 420}}],
        "containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80}],
            "resources": {"limits": {"cpu": "500m", "memory": "64Mi"}},
            "livenessProbe": {"httpGet": {"path": "/", "port": "http"}, "periodSeconds": 3}}],
        "priority": -5}}),
    );
    round_trip(
        json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "l"},
        "spec": {"renewTime": "2024-01-02T03:04:05.678901Z", "leaseDurationSeconds": 40}}),
    );
    round_trip(
        json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "metadata": {},
        "spec": {"user": "u", "extra": {"a": ["1", "2"]}}}),
    );
    round_trip(
        json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "a.b"},
        "spec": {"group": "b", "scope": "Cluster", "names": {"plural": "a", "kind": "A"}, "versions": [{"name": "v1",
            "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object", "additionalProperties": false,
            "properties": {"s": {"type": "array", "items": {"type": "number", "default": 1, "minimum": 0.5}}}}}}]}}),
    );
}

#[test]
fn lists_and_status_have_a_form() {
    let registry = Registry::builtin();
    let list = json!({"apiVersion": "v1", "kind": "ConfigMapList", "metadata": {"resourceVersion": "7"},
        "items": [{"metadata": {"name": "a"}}]});
    let unknown = open(&registry.encode_protobuf(&list).unwrap()).unwrap();
    assert_eq!(
        (&*unknown.api_version, &*unknown.kind),
        ("v1", "ConfigMapList")
    );
    assert!(!unknown.raw.is_empty());
    let status = json!({"apiVersion": "v1", "kind": "Status", "status": "Failure", "code": 404});
    let unknown = open(&registry.encode_protobuf(&status).unwrap()).unwrap();
    let type_id = by_name("io.k8s.apimachinery.pkg.apis.meta.v1.Status").unwrap();
    let back = convert(type_id, decode(type_id, &unknown.raw).unwrap()).unwrap();
    assert_eq!(back.object["code"], 404);
}

#[test]
fn malformed_bytes_are_refused() {
    let pod = by_name("io.k8s.api.core.v1.Pod").unwrap();
    for bytes in [
        &b"\x0a\xff"[..],
        b"\x0a",
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x0b",
    ] {
        assert!(decode(pod, bytes).is_err(), "{bytes:?}");
    }
    assert!(open(b"nonsense").unwrap_err().contains("expected prefix"));
    // A message inside itself, far too often.
    let mut nested = Vec::new();
    for _ in 0..200 {
        let mut outer = Vec::new();
        wire::put_bytes(&mut outer, 28, &nested);
        nested = outer;
    }
    let props = by_name("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps")
        .unwrap();
    let _ = decode(props, &nested);
}
