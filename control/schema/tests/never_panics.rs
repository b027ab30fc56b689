//! Whatever a client sends, the answer is an object or an error: random bytes, texts and objects through every face.

use jiff::Timestamp;
use meshgate_schema::quantity::Quantity;
use meshgate_schema::{
    FieldSelector, FieldValidation, IncludeObject, LabelSelector, Media, PatchType, Registry,
    TableOptions, crd,
};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

/// Words that the rules look for, so that random objects get past the first `if`.
const KEYS: &[&str] = &[
    "metadata",
    "spec",
    "status",
    "name",
    "namespace",
    "labels",
    "containers",
    "initContainers",
    "template",
    "selector",
    "matchLabels",
    "matchExpressions",
    "ports",
    "port",
    "volumes",
    "volumeMounts",
    "env",
    "valueFrom",
    "livenessProbe",
    "httpGet",
    "rules",
    "http",
    "paths",
    "backend",
    "service",
    "subsets",
    "endpoints",
    "addresses",
    "data",
    "webhooks",
    "clientConfig",
    "strategy",
    "rollingUpdate",
    "maxSurge",
    "replicas",
    "resources",
    "limits",
    "requests",
    "cpu",
    "conditions",
    "type",
    "roleRef",
    "subjects",
    "versions",
    "schema",
    "openAPIV3Schema",
    "properties",
    "items",
    "default",
    "pattern",
    "anyOf",
    "not",
    "names",
    "additionalProperties",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
    "required",
    "enum",
    "group",
    "plural",
    "kind",
    "$patch",
    "$retainKeys",
    "$setElementOrder/containers",
    "$deleteFromPrimitiveList/finalizers",
    "finalizers",
    "scope",
    "subresources",
    "scale",
    "specReplicasPath",
    "additionalPrinterColumns",
    "jsonPath",
    "storage",
    "served",
];

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-z0-9.:/%$*-]{0,8}".prop_map(Value::from),
        proptest::sample::select(vec![
            "",
            "replace",
            "delete",
            "map",
            "object",
            "array",
            "string",
            "Always",
            "[",
            "1Gi",
            "None",
            "ClusterIP"
        ])
        .prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 60, 6, |inner| {
        let key = proptest::sample::select(KEYS);
        let entries = proptest::collection::vec((key, inner.clone()), 0..6);
        prop_oneof![
            proptest::collection::vec(inner, 0..4).prop_map(Value::from),
            entries.prop_map(|entries| {
                Value::Object(
                    entries
                        .into_iter()
                        .map(|(key, value)| (key.to_owned(), value))
                        .collect::<Map<_, _>>(),
                )
            }),
        ]
    })
}

fn life_of(registry: &Registry, object: &Value, other: &Value) {
    let options = TableOptions {
        include: IncludeObject::Object,
        headers: true,
    };
    for kind in registry.kinds() {
        let patch = other.to_string();
        for patch_type in [PatchType::Json, PatchType::Merge, PatchType::Strategic] {
            let _ = kind.patch(
                registry,
                patch_type,
                object,
                patch.as_bytes(),
                FieldValidation::Strict,
            );
        }
        let _ = kind.table(&[object], json!({}), Timestamp::UNIX_EPOCH, options);
        // Rules meet decoded objects; here also any other, for a webhook or an old file may have written it.
        for start in [
            Ok(object.clone()),
            kind.decode_value(object.clone(), FieldValidation::Ignore)
                .map(|decoded| decoded.object),
        ] {
            let Ok(mut new) = start else { continue };
            kind.default(&mut new);
            kind.prepare_create(&mut new);
            kind.validate_create(&new);
            kind.object_warnings(&new);
            let mut update = other.clone();
            kind.default(&mut update);
            kind.prepare_update(&mut update, &new);
            kind.validate_update(&update, &new);
            kind.prepare_status_update(&mut update, &new);
            kind.validate_status_update(&update, &new);
            kind.generation_changes(&update, &new);
            kind.scale_of(&new);
            kind.with_scale(&new, &update);
            registry.encode_protobuf(&new);
            kind.from_storage(kind.to_storage(new));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn objects(object in json_value(), other in json_value()) {
        life_of(&Registry::builtin(), &object, &other);
    }

    #[test]
    fn custom_objects(schema in json_value(), object in json_value(), other in json_value()) {
        let definition = json!({
            "metadata": {"name": "a.b.test"},
            "spec": {"group": "b.test", "scope": "Cluster", "names": {"plural": "a", "kind": "A", "listKind": "AList", "singular": "a"},
                "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}]},
            "status": {"acceptedNames": {"plural": "a", "kind": "A", "listKind": "AList", "singular": "a"},
                "conditions": [{"type": "Established", "status": "True"}]},
        });
        let registry = Registry::builtin().with_custom(std::slice::from_ref(&definition));
        let kind = registry.resource("b.test", "v1", "a").expect("established above");
        let only = Registry::builtin().with_custom(&[]);
        crd::names_status(&definition, &[&definition, &object], &only, Timestamp::UNIX_EPOCH);
        let mut object = json!({"spec": object, "metadata": other});
        kind.default(&mut object);
        kind.validate_create(&object);
        let _ = kind.decode_value(object, FieldValidation::Strict);
        registry.openapi_v3("apis/b.test/v1");
    }

    #[test]
    fn bytes(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        let registry = Registry::builtin();
        let mut enveloped = b"k8s\0\x12".to_vec();
        enveloped.push(u8::try_from(body.len()).unwrap_or(0));
        enveloped.extend(&body);
        for kind in registry.kinds() {
            for media in [Media::Json, Media::Yaml, Media::Protobuf] {
                let _ = kind.decode(&registry, &body, media, FieldValidation::Warn);
            }
            let _ = kind.decode(&registry, &enveloped, Media::Protobuf, FieldValidation::Warn);
        }
    }

    #[test]
    fn texts(text in "[a-z0-9.,=!<>() \\\\'\"/-]{0,40}|\\PC{0,20}") {
        let _ = LabelSelector::parse(&text);
        let _ = FieldSelector::parse(&text);
        let _ = meshgate_schema::time::parse(&text);
        let _ = meshgate_schema::names::qualified_name(&text);
        meshgate_schema::names::generate(&text, "abcde");
    }

    /// The canonical form of a quantity is its own canonical form, and the same amount.
    #[test]
    fn quantities(text in "[+-]?[0-9]{0,12}(\\.[0-9]{0,12})?(n|u|m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|e-?[0-9]{1,2})?") {
        if let Ok(quantity) = Quantity::parse(&text) {
            let canonical = quantity.to_string();
            let again = Quantity::parse(&canonical).expect("a canonical form is a quantity");
            prop_assert_eq!(again.to_string(), canonical);
            prop_assert_eq!(again, quantity);
        }
    }
}
