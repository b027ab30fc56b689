use serde_json::json;

use super::*;

fn decode(
    group: &str,
    plural: &str,
    body: &[u8],
    media: Media,
    validation: FieldValidation,
) -> Result<Decoded, Failure> {
    let registry = Registry::builtin();
    registry
        .resource(group, "v1", plural)
        .unwrap()
        .decode(&registry, body, media, validation)
}

/// What is stored of an object.
#[track_caller]
fn check(group: &str, plural: &str, object: Value, want: Value) {
    let decoded = decode(
        group,
        plural,
        object.to_string().as_bytes(),
        Media::Json,
        FieldValidation::Strict,
    )
    .unwrap();
    assert_eq!(
        decoded.object.to_string(),
        want.to_string(),
        "order counts too"
    );
}

#[test]
fn stored_forms() {
    // Empty and null go, a null map value is empty, the type comes first.
    check(
        "",
        "configmaps",
        json!({"metadata": {"labels": {}, "name": "a", "annotations": null, "finalizers": []}, "data": {"b": null, "a": "1"}}),
        json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "a"}, "data": {"a": "1", "b": ""}}),
    );
    // What is not a pointer in Go is left out when zero, and what is never left out appears.
    check(
        "",
        "pods",
        json!({"metadata": {"name": "p"}, "spec": {"hostNetwork": false, "hostUsers": false, "containers": [{"name": "c", "tty": false}]}}),
        json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "resources": {}}], "hostUsers": false}, "status": {}}),
    );
    // Quantities and times are canonical, also in places that are inline in Go.
    check(
        "",
        "pods",
        json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "resources": {"limits": {"memory": "1024Ki", "cpu": 0.5}}, "readinessProbe": {"tcpSocket": {"port": "http"}}}]}}),
        json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "resources": {"limits": {"cpu": "500m", "memory": "1Mi"}}, "readinessProbe": {"tcpSocket": {"port": "http"}}}]}, "status": {}}),
    );
    check(
        "coordination.k8s.io",
        "leases",
        json!({"metadata": {"name": "l", "creationTimestamp": null}, "spec": {"renewTime": "2024-01-01T02:00:00.5+02:00"}}),
        json!({"kind": "Lease", "apiVersion": "coordination.k8s.io/v1", "metadata": {"name": "l"}, "spec": {"renewTime": "2024-01-01T00:00:00.500000Z"}}),
    );
}

#[test]
fn free_form_parts() {
    let crd = json!({"metadata": {"name": "c", "managedFields": [{"manager": "m", "fieldsV1": {"f:x": {}}}]}, "spec": {"group": "g", "scope": "Cluster", "names": {"plural": "p", "kind": "K"},
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object", "additionalProperties": {"type": "string", "nope": 1, "default": {"any": [1]}}}}}]}});
    let body = crd.to_string();
    let decoded = decode(
        "apiextensions.k8s.io",
        "customresourcedefinitions",
        body.as_bytes(),
        Media::Json,
        FieldValidation::Warn,
    )
    .unwrap();
    assert_eq!(
        decoded.warnings,
        ["unknown field \"spec.versions[0].schema.openAPIV3Schema.additionalProperties.nope\""]
    );
    assert_eq!(
        decoded.object["metadata"]["managedFields"][0]["fieldsV1"],
        json!({"f:x": {}})
    );
    let schema =
        &decoded.object["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["additionalProperties"];
    assert_eq!(*schema, json!({"type": "string", "default": {"any": [1]}}));
}

#[test]
fn unknown_and_duplicate_fields() {
    let body = br#"{"metadata":{"name":"x","nope":1},"data":{"a":"1","a":"2"},"extra":true}"#;
    let strict = decode("", "configmaps", body, Media::Json, FieldValidation::Strict).unwrap_err();
    assert_eq!(strict.code, 400);
    assert_eq!(
        strict.message,
        "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: duplicate field \"data.a\", unknown field \"metadata.nope\", unknown field \"extra\""
    );
    let warn = decode("", "configmaps", body, Media::Json, FieldValidation::Warn).unwrap();
    assert_eq!(
        warn.warnings,
        [
            "duplicate field \"data.a\"",
            "unknown field \"metadata.nope\"",
            "unknown field \"extra\""
        ]
    );
    assert_eq!(warn.object["data"]["a"], "2");
    assert!(warn.object.get("extra").is_none());
    let ignore = decode("", "configmaps", body, Media::Json, FieldValidation::Ignore).unwrap();
    assert!(ignore.warnings.is_empty());
}

#[track_caller]
fn refused(group: &str, plural: &str, body: &str, want: &str) {
    let failure = decode(
        group,
        plural,
        body.as_bytes(),
        Media::Json,
        FieldValidation::Warn,
    )
    .unwrap_err();
    assert_eq!((failure.code, failure.message.as_str()), (400, want));
}

#[test]
fn refusals() {
    refused(
        "",
        "configmaps",
        "",
        "the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json parse error: unexpected end of JSON input (<empty>)",
    );
    refused(
        "",
        "configmaps",
        r#"{"apiVersion": "v1", "kind": "ConfigMap", "#,
        r#"the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json parse error: unexpected end of JSON input ({"apiVersion": "v1", "kind": " ...)"#,
    );
    refused(
        "",
        "configmaps",
        r#"{"data":{"a":1}}"#,
        "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: json: cannot unmarshal number into Go struct field ConfigMap.data of type string",
    );
    refused(
        "apps",
        "deployments",
        r#"{"spec":{"replicas":"three"}}"#,
        "Deployment in version \"v1\" cannot be handled as a Deployment: json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
    );
    refused(
        "apps",
        "deployments",
        r#"{"spec":{"replicas":3000000000}}"#,
        "Deployment in version \"v1\" cannot be handled as a Deployment: json: cannot unmarshal number 3000000000 into Go struct field DeploymentSpec.spec.replicas of type int32",
    );
    refused(
        "",
        "pods",
        r#"{"spec":{"containers":{"name":"a"}}}"#,
        "Pod in version \"v1\" cannot be handled as a Pod: json: cannot unmarshal object into Go struct field PodSpec.spec.containers of type []v1.Container",
    );
    refused(
        "",
        "secrets",
        r#"{"data":{"a":"!!"}}"#,
        "Secret in version \"v1\" cannot be handled as a Secret: illegal base64 data at input byte 0",
    );
    refused(
        "",
        "pods",
        r#"{"spec":{"containers":[{"resources":{"limits":{"cpu":"1x"}}}]}}"#,
        "Pod in version \"v1\" cannot be handled as a Pod: quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
    );
    refused(
        "coordination.k8s.io",
        "leases",
        r#"{"spec":{"renewTime":"yesterday"}}"#,
        "Lease in version \"v1\" cannot be handled as a Lease: parsing time \"yesterday\" as \"2006-01-02T15:04:05.000000Z07:00\": cannot parse \"yesterday\" as \"2006\"",
    );
    refused(
        "",
        "configmaps",
        r#"{"kind":"Nothing"}"#,
        "Nothing in version \"v1\" cannot be handled as a ConfigMap: no kind \"Nothing\" is registered for version \"v1\"",
    );
    refused(
        "",
        "configmaps",
        r#"{"kind":"Secret"}"#,
        "Secret in version \"v1\" cannot be handled as a ConfigMap: converting (v1.Secret) to (v1.ConfigMap): unknown conversion",
    );
    refused(
        "",
        "configmaps",
        r#"{"kind":5}"#,
        "the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json parse error: json: cannot unmarshal number into field kind of type string",
    );
}

#[test]
fn yaml_and_other_kinds() {
    let decoded = decode(
        "",
        "configmaps",
        b"metadata: {name: a}\ndata:\n  1: '2'\n",
        Media::Yaml,
        FieldValidation::Strict,
    )
    .unwrap();
    assert_eq!(decoded.object["data"], json!({"1": "2"}));
    let registry = Registry::builtin();
    let options = registry
        .decode_any(
            "",
            "v1",
            "DeleteOptions",
            br#"{"propagationPolicy":"Background","gracePeriodSeconds":0}"#,
            Media::Json,
            FieldValidation::Strict,
        )
        .unwrap();
    assert_eq!(options.object["gracePeriodSeconds"], 0);
    let scale = registry
        .decode_any(
            "autoscaling",
            "v1",
            "Scale",
            br#"{"kind":"Scale","apiVersion":"autoscaling/v1","spec":{"replicas":2}}"#,
            Media::Json,
            FieldValidation::Strict,
        )
        .unwrap();
    assert_eq!(scale.object["spec"]["replicas"], 2);
    assert!(
        registry
            .decode_any(
                "autoscaling",
                "v1",
                "Scale",
                br#"{"kind":"Pod"}"#,
                Media::Json,
                FieldValidation::Strict
            )
            .is_err()
    );
}
