use super::*;

fn document(path: &str) -> Value {
    serde_json::from_slice(&Registry::builtin().openapi_v3(path).unwrap()).unwrap()
}

#[test]
fn version_three_has_what_kubectl_looks_for() {
    let core = document("api/v1");
    let schemas = &core["components"]["schemas"];
    let container = &schemas["io.k8s.api.core.v1.Container"];
    assert_eq!(container["required"], json!(["name"]));
    let ports = &container["properties"]["ports"];
    assert_eq!(ports["x-kubernetes-patch-merge-key"], "containerPort");
    assert_eq!(
        ports["x-kubernetes-list-map-keys"],
        json!(["containerPort", "protocol"])
    );
    assert_eq!(
        container["properties"]["imagePullPolicy"]["enum"],
        json!(["Always", "IfNotPresent", "Never"])
    );
    let pod = &schemas["io.k8s.api.core.v1.Pod"];
    assert_eq!(
        pod["x-kubernetes-group-version-kind"],
        json!([{"group": "", "version": "v1", "kind": "Pod"}])
    );
    assert!(pod.get("required").is_none());
    assert_eq!(
        pod["properties"]["spec"]["allOf"][0]["$ref"],
        "#/components/schemas/io.k8s.api.core.v1.PodSpec"
    );
    let apps = document("apis/apps/v1");
    let patch = &apps["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
    let names: Vec<&Value> = patch["parameters"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["name"])
        .collect();
    assert_eq!(
        names,
        ["dryRun", "fieldManager", "fieldValidation", "force"]
    );
    assert_eq!(patch["operationId"], "patchAppsV1NamespacedDeployment");
}

/// Every reference leads somewhere, in every document.
#[test]
fn references_resolve() {
    let registry = Registry::builtin();
    let mut documents: Vec<Value> = registry
        .document_paths()
        .iter()
        .map(|path| serde_json::from_slice(&registry.openapi_v3(path).unwrap()).unwrap())
        .collect();
    documents.push(serde_json::from_slice(&registry.openapi_v2()).unwrap());
    for document in &documents {
        check_references(document, document);
    }
}

fn check_references(document: &Value, value: &Value) {
    match value {
        Value::Object(map) => {
            if let Some(Value::String(reference)) = map.get("$ref") {
                let found = document.pointer(reference.trim_start_matches('#'));
                assert!(found.is_some(), "{reference}");
            }
            map.values()
                .for_each(|inner| check_references(document, inner));
        }
        Value::Array(items) => items
            .iter()
            .for_each(|inner| check_references(document, inner)),
        _ => {}
    }
}

/// Each property that the schemas know is one that decoding keeps, and the other way round.
#[test]
fn schemas_and_facts_agree() {
    let registry = Registry::builtin();
    let swagger: Value = serde_json::from_slice(&registry.openapi_v2()).unwrap();
    let mut compared = 0;
    for (name, schema) in swagger["definitions"].as_object().unwrap() {
        let Some(type_id) = crate::types::by_name(name) else {
            continue;
        };
        let Some(properties) = schema["properties"].as_object() else {
            continue;
        };
        let mut theirs: Vec<&str> = properties.keys().map(String::as_str).collect();
        let mut ours: Vec<&str> = type_id
            .get()
            .flat_fields()
            .iter()
            .map(|field| field.name)
            .collect();
        theirs.sort_unstable();
        ours.sort_unstable();
        assert_eq!(ours, theirs, "{name}");
        compared += 1;
    }
    assert!(compared > 200, "{compared}");
}

#[test]
fn hashes_are_cheap_and_change_with_custom_kinds() {
    let registry = Registry::builtin();
    assert_eq!(
        registry.openapi_v3_hash("apis/apps/v1"),
        registry.openapi_v3_hash("apis/apps/v1")
    );
    assert_ne!(
        registry.openapi_v3_hash("apis/apps/v1"),
        registry.openapi_v3_hash("api/v1")
    );
    assert!(registry.openapi_v3("apis/nothing/v1").is_none());
    let index = registry.openapi_v3_index();
    assert!(
        index["paths"]["apis/apps/v1"]["serverRelativeURL"]
            .as_str()
            .unwrap()
            .starts_with("/openapi/v3/apis/apps/v1?hash=")
    );
}

#[test]
fn protobuf_begins_as_the_real_one() {
    let bytes = Registry::builtin().openapi_v2_protobuf();
    assert_eq!(&bytes[..4], [0x0a, 0x03, 0x32, 0x2e]);
}
