use jiff::Timestamp;
use serde_json::json;

use super::*;
use crate::{FieldValidation, Registry};

fn definition(schema: Value) -> Value {
    json!({
        "metadata": {"name": "widgets.a.test"},
        "spec": {
            "group": "a.test",
            "scope": "Namespaced",
            "names": {"plural": "widgets", "kind": "Widget"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema},
                "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.size", "statusReplicasPath": ".status.n"}},
                "additionalPrinterColumns": [{"name": "Size", "type": "integer", "jsonPath": ".spec.size"}]}],
        },
    })
}

/// A registry that serves the definition.
fn serve(schema: Value) -> Registry {
    let registry = Registry::builtin();
    let kind = registry
        .resource("apiextensions.k8s.io", "v1", "customresourcedefinitions")
        .unwrap();
    let mut crd = kind
        .decode_value(definition(schema), FieldValidation::Strict)
        .unwrap()
        .object;
    kind.default(&mut crd);
    kind.prepare_create(&mut crd);
    assert_eq!(kind.validate_create(&crd), []);
    crd["status"] = names_status(&crd, &[], &registry, Timestamp::UNIX_EPOCH);
    registry.with_custom(&[crd])
}

fn schema() -> Value {
    let object = |properties: Value| json!({"type": "object", "properties": properties});
    let mut spec = object(json!({
        "size": {"type": "integer", "minimum": 1, "maximum": 10, "default": 3},
        "color": {"type": "string", "enum": ["red", "green"]},
        "code": {"type": "string", "pattern": "^[a-z]+$", "maxLength": 5},
        "port": {"x-kubernetes-int-or-string": true},
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
        "when": {"type": "string", "format": "date-time"},
        "maybe": {"type": "string", "nullable": true},
        "items": {"type": "array", "maxItems": 2, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
            "items": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}, "v": {"type": "integer", "default": 7}}}},
        "tags": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        "one": {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}}, "oneOf": [{"required": ["a"]}, {"required": ["b"]}]},
        "embedded": {"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true},
    }));
    spec["required"] = json!(["size"]);
    object(json!({"spec": spec, "status": object(json!({"n": {"type": "integer"}}))}))
}

/// Decodes, defaults and validates a widget's spec: what is stored, or what is wrong.
#[track_caller]
fn check(spec: Value, want: Result<Value, &[&str]>) {
    let registry = serve(schema());
    let kind = registry.resource("a.test", "v1", "widgets").unwrap();
    let object = json!({"metadata": {"name": "w", "namespace": "n"}, "spec": spec});
    let mut object = kind
        .decode_value(object, FieldValidation::Ignore)
        .unwrap()
        .object;
    kind.default(&mut object);
    let errors: Vec<String> = kind
        .validate_create(&object)
        .iter()
        .map(ToString::to_string)
        .collect();
    match want {
        Ok(stored) => assert_eq!((object["spec"].clone(), errors), (stored, Vec::new())),
        Err(wanted) => assert_eq!(errors, wanted),
    }
}

#[test]
fn objects() {
    check(json!({}), Ok(json!({"size": 3})));
    check(
        json!({"size": 2, "nope": 1, "free": {"deep": {"er": 1}}, "items": [{"name": "a", "x": 1}]}),
        Ok(json!({"size": 2, "free": {"deep": {"er": 1}}, "items": [{"name": "a", "v": 7}]})),
    );
    check(
        json!({"size": null, "color": null, "maybe": null}),
        Ok(json!({"size": 3, "maybe": null})),
    );
    check(
        json!({"port": "http"}),
        Ok(json!({"port": "http", "size": 3})),
    );
    check(
        json!({"size": "big"}),
        Err(&[
            "spec.size: Invalid value: \"string\": spec.size in body must be of type integer: \"string\"",
            ".spec.size: Invalid value: 0: .spec.size accessor error: big is of the type string, expected int64",
        ]),
    );
    check(
        json!({"size": 11}),
        Err(&[
            "spec.size: Invalid value: 11: spec.size in body should be less than or equal to 10",
        ]),
    );
    check(
        json!({"color": "blue"}),
        Err(&["spec.color: Unsupported value: \"blue\": supported values: \"red\", \"green\""]),
    );
    check(
        json!({"code": "A1"}),
        Err(&["spec.code: Invalid value: \"A1\": spec.code in body should match '^[a-z]+$'"]),
    );
    check(
        json!({"code": "999999"}),
        Err(&["spec.code: Too long: may not be more than 5 bytes"]),
    );
    check(
        json!({"port": true}),
        Err(&[
            "spec.port: Invalid value: \"boolean\": spec.port in body must be of type integer,string: \"boolean\"",
        ]),
    );
    check(
        json!({"when": "noon"}),
        Err(&[
            "spec.when: Invalid value: \"noon\": spec.when in body must be of type date-time: \"noon\"",
        ]),
    );
    check(
        json!({"items": [{"v": 1}]}),
        Err(&["spec.items[0].name: Required value"]),
    );
    check(
        json!({"items": [{"name": "a"}, {"name": "a"}]}),
        Err(&["spec.items[1]: Duplicate value: {\"name\":\"a\"}"]),
    );
    check(
        json!({"items": [{"name": "a"}, {"name": "b"}, {"name": "c"}]}),
        Err(&["spec.items: Too many: 3: must have at most 2 items"]),
    );
    check(
        json!({"tags": ["a", "a"]}),
        Err(&["spec.tags[1]: Duplicate value: \"a\""]),
    );
    check(
        json!({"one": {"a": "", "b": ""}}),
        Err(&[
            "spec.one: Invalid value: \"object\": \"spec.one\" must validate one and only one schema (oneOf). Found 2 valid alternatives",
        ]),
    );
    check(
        json!({"embedded": {"metadata": {}}}),
        Err(&[
            "spec.embedded.apiVersion: Required value",
            "spec.embedded.kind: Required value",
        ]),
    );
}

#[test]
fn kinds_are_served() {
    let registry = serve(schema());
    let kind = registry.resource("a.test", "v1", "widgets").unwrap();
    assert_eq!(
        (kind.kind(), kind.list_kind(), kind.singular()),
        ("Widget", "WidgetList", "widget")
    );
    assert!(kind.has_status());
    assert!(!kind.allows_unconditional_update());
    let object = json!({"metadata": {"name": "w"}, "spec": {"size": 4}});
    assert_eq!(kind.scale_of(&object).unwrap()["spec"]["replicas"], 4);
    let options = crate::TableOptions {
        include: crate::IncludeObject::None,
        headers: true,
    };
    let table = kind.table(&[&object], json!({}), Timestamp::UNIX_EPOCH, options);
    assert_eq!(table["rows"][0]["cells"], json!(["w", 4]));
    assert!(registry.openapi_v3("apis/a.test/v1").is_some());
    assert_ne!(
        registry.openapi_v3_index(),
        Registry::builtin().openapi_v3_index()
    );
    assert!(
        registry
            .with_custom(&[])
            .resource("a.test", "v1", "widgets")
            .is_none()
    );
    let other = json!({"apiVersion": "a.test/v2", "kind": "Widget"}).to_string();
    let failure = kind
        .decode(
            &registry,
            other.as_bytes(),
            crate::Media::Json,
            FieldValidation::Warn,
        )
        .unwrap_err();
    assert_eq!(
        failure.message,
        "the API version in the data (a.test/v2) does not match the expected API version (a.test/v1)"
    );
}

#[test]
fn status_is_its_own() {
    let registry = serve(schema());
    let kind = registry.resource("a.test", "v1", "widgets").unwrap();
    let old = json!({"metadata": {"name": "w", "labels": {"a": "b"}}, "spec": {"size": 1}});
    let mut new = json!({"metadata": {"name": "w"}, "spec": {"size": 2}, "status": {"n": 1}});
    kind.prepare_status_update(&mut new, &old);
    assert_eq!(
        new,
        json!({"metadata": {"name": "w", "labels": {"a": "b"}}, "spec": {"size": 1}, "status": {"n": 1}})
    );
    let mut update = json!({"metadata": {"name": "w"}, "spec": {"size": 2}, "status": {"n": 5}});
    kind.prepare_update(&mut update, &new);
    assert_eq!(update["status"], json!({"n": 1}));
    assert!(kind.generation_changes(&update, &new));
    assert!(!kind.generation_changes(&new, &old));
}

/// Breaks the definition at a JSON pointer and lists what is then wrong.
#[track_caller]
fn refused(pointer: &str, value: Value, want: &[&str]) {
    let registry = Registry::builtin();
    let kind = registry
        .resource("apiextensions.k8s.io", "v1", "customresourcedefinitions")
        .unwrap();
    let plain = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {"a": {"type": "string"}}}}});
    let mut crd = definition(plain);
    if let (Some((parent, last)), true) = (pointer.rsplit_once('/'), !pointer.is_empty()) {
        crd.pointer_mut(parent).unwrap()[last] = value;
    }
    let mut crd = kind
        .decode_value(crd, FieldValidation::Strict)
        .unwrap()
        .object;
    kind.default(&mut crd);
    kind.prepare_create(&mut crd);
    let found: Vec<String> = kind
        .validate_create(&crd)
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(found, want, "{pointer}");
}

#[test]
fn definitions() {
    const SCHEMA: &str = "/spec/versions/0/schema/openAPIV3Schema";
    let inside = |path: &str| format!("{SCHEMA}/properties/spec/properties/{path}");
    refused("", Value::Null, &[]);
    refused(
        "/metadata/name",
        json!("x.a.test"),
        &["metadata.name: Invalid value: \"x.a.test\": must be spec.names.plural+\".\"+spec.group"],
    );
    refused(
        "/spec/scope",
        json!("Galaxy"),
        &[
            "spec.scope: Unsupported value: \"Galaxy\": supported values: \"Cluster\", \"Namespaced\"",
        ],
    );
    refused(
        "/spec/versions/0/schema",
        Value::Null,
        &["spec.versions[0].schema.openAPIV3Schema: Required value"],
    );
    refused(
        &inside("a"),
        json!({"description": "d"}),
        &[
            "spec.validation.openAPIV3Schema.properties[spec].properties[a].type: Required value: must not be empty for specified object fields",
        ],
    );
    refused(
        &inside("a"),
        json!({"type": "string", "default": 5}),
        &[
            "spec.validation.openAPIV3Schema.properties[spec].properties[a].default: Invalid value: \"integer\":  in body must be of type string: \"integer\"",
        ],
    );
    refused(
        &inside("a"),
        json!({"type": "array", "x-kubernetes-list-type": "map", "items": {"type": "object"}}),
        &[
            "spec.validation.openAPIV3Schema.properties[spec].properties[a].x-kubernetes-list-map-keys: Required value: must not be empty if x-kubernetes-list-type is map",
        ],
    );
    refused(
        &inside("a"),
        json!({"type": "object", "default": {"nope": 1}}),
        &[
            "spec.validation.openAPIV3Schema.properties[spec].properties[a].default: Invalid value: {\"nope\":1}: must not have unknown fields",
        ],
    );
    refused(
        &inside("a"),
        json!({"type": "string", "anyOf": [{"type": "string"}]}),
        &[
            "spec.validation.openAPIV3Schema.properties[spec].properties[a].anyOf[0].type: Forbidden: must be empty to be structural",
        ],
    );
    refused(
        &format!("{SCHEMA}/properties/metadata"),
        json!({"type": "object", "properties": {"labels": {"type": "object"}}}),
        &[
            "spec.validation.openAPIV3Schema.properties[metadata]: Forbidden: must not specify anything other than name and generateName, but metadata is implicitly specified",
        ],
    );
    refused(
        "/spec/versions/0/additionalPrinterColumns/0/jsonPath",
        json!("spec.a"),
        &[
            "spec.additionalPrinterColumns[0].JSONPath: Invalid value: \"spec.a\": must be a simple json path starting with .",
        ],
    );
    refused(
        "/spec/versions/0/subresources/scale/specReplicasPath",
        json!(".status.x"),
        &[
            "spec.subresources.scale.specReplicasPath: Invalid value: \".status.x\": should be a json path under .spec",
        ],
    );
    refused(
        "/spec/versions/0/selectableFields",
        json!([{"jsonPath": ".spec.nothing"}]),
        &[
            "spec.versions[0].selectableFields[0].jsonPath: Invalid value: \".spec.nothing\": must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.",
        ],
    );
    refused(
        "/spec/group",
        json!("x.k8s.io"),
        &[
            "metadata.name: Invalid value: \"widgets.a.test\": must be spec.names.plural+\".\"+spec.group",
            "metadata.annotations[api-approved.kubernetes.io]: Required value: protected groups must have approval annotation \"api-approved.kubernetes.io\", see https://github.com/kubernetes/enhancements/pull/1111",
        ],
    );
}

#[test]
fn names_conflict() {
    let registry = Registry::builtin();
    let mut first = definition(schema());
    first["spec"]["names"] = json!({"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList", "shortNames": ["wd"]});
    first["status"] = names_status(&first, &[], &registry, Timestamp::UNIX_EPOCH);
    assert_eq!(first["status"]["conditions"][1]["status"], "True");
    let mut second = definition(schema());
    second["metadata"]["name"] = "plains.a.test".into();
    second["spec"]["names"] = json!({"plural": "plains", "singular": "plain", "kind": "Plain", "listKind": "PlainList", "shortNames": ["wd"]});
    let status = names_status(&second, &[&first], &registry, Timestamp::UNIX_EPOCH);
    assert_eq!(status["conditions"][0]["reason"], "ShortNamesConflict");
    assert_eq!(status["conditions"][1]["reason"], "NotAccepted");
    second["status"] = status;
    assert!(served_kinds(&second).is_empty());
    let alone = names_status(&second, &[], &registry, Timestamp::UNIX_EPOCH);
    assert_eq!(alone["acceptedNames"]["shortNames"], json!(["wd"]));
    assert_eq!(alone["conditions"][1]["reason"], "InitialNamesAccepted");
}

#[test]
fn preferred_versions() {
    let mut versions = [
        "v1alpha1", "v1", "foo", "v2beta1", "v10", "v2", "v1beta2", "bar",
    ];
    versions.sort_by_key(|version| std::cmp::Reverse(version_priority(version)));
    assert_eq!(
        versions,
        [
            "v10", "v2", "v1", "v2beta1", "v1beta2", "v1alpha1", "bar", "foo"
        ]
    );
}
