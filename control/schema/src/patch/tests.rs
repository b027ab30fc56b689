use serde_json::json;

use super::*;

#[track_caller]
fn check(plural: &str, group: &str, current: Value, patch: Value, want: Value) {
    let registry = Registry::builtin();
    let kind = registry.resource(group, "v1", plural).unwrap();
    let patched = kind
        .patch(
            &registry,
            PatchType::Strategic,
            &current,
            patch.to_string().as_bytes(),
            FieldValidation::Strict,
        )
        .unwrap()
        .object;
    for (key, value) in want.as_object().unwrap() {
        assert_eq!(&patched[key], value, "{key} of {patched}");
    }
}

fn pod(containers: Value) -> Value {
    json!({"metadata": {"name": "p"}, "spec": {"containers": containers}})
}

/// The `spec` of a pod with these containers, as decoding writes it.
fn spec(containers: Value) -> Value {
    let mut containers = containers;
    for container in containers.as_array_mut().unwrap() {
        container
            .as_object_mut()
            .unwrap()
            .entry("resources")
            .or_insert(json!({}));
    }
    json!({"spec": {"containers": containers}})
}

#[test]
fn lists_merge_by_key() {
    let now = pod(json!([{"name": "a", "image": "1"}, {"name": "b", "image": "1"}]));
    let patch = json!({"spec": {"containers": [{"name": "b", "image": "2"}]}});
    check(
        "pods",
        "",
        now.clone(),
        patch,
        spec(json!([{"name": "a", "image": "1"}, {"name": "b", "image": "2"}])),
    );
    let patch = json!({"spec": {"containers": [{"name": "c", "image": "3"}]}});
    check(
        "pods",
        "",
        now.clone(),
        patch,
        spec(
            json!([{"name": "c", "image": "3"}, {"name": "a", "image": "1"}, {"name": "b", "image": "1"}]),
        ),
    );
    let patch = json!({"spec": {"containers": [{"name": "a", "$patch": "delete"}]}});
    check(
        "pods",
        "",
        now.clone(),
        patch,
        spec(json!([{"name": "b", "image": "1"}])),
    );
    let patch = json!({"spec": {"containers": [{"$patch": "replace"}, {"name": "z"}]}});
    check("pods", "", now.clone(), patch, spec(json!([{"name": "z"}])));
    let patch = json!({"spec": {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}], "containers": [{"name": "a", "image": "9"}]}});
    check(
        "pods",
        "",
        now.clone(),
        patch,
        spec(json!([{"name": "b", "image": "1"}, {"name": "a", "image": "9"}])),
    );
    let patch = json!({"spec": {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}});
    check(
        "pods",
        "",
        now,
        patch,
        spec(json!([{"name": "b", "image": "1"}, {"name": "a", "image": "1"}])),
    );
}

#[test]
fn maps_and_scalars() {
    let now = json!({"metadata": {"name": "c", "labels": {"a": "1", "b": "2"}, "finalizers": ["x/y", "z/y"]}, "data": {"k": "v"}});
    let patch = json!({"metadata": {"labels": {"a": null, "c": "3"}, "$deleteFromPrimitiveList/finalizers": ["x/y"], "finalizers": ["n/y"]}});
    let want = json!({"metadata": {"name": "c", "labels": {"b": "2", "c": "3"}, "finalizers": ["n/y", "z/y"]}, "data": {"k": "v"}});
    check("configmaps", "", now.clone(), patch, want);
    check(
        "configmaps",
        "",
        now.clone(),
        json!({"data": {"$patch": "replace", "n": "1"}}),
        json!({"data": {"n": "1"}}),
    );
    check(
        "configmaps",
        "",
        now,
        json!({"data": null}),
        json!({"data": null}),
    );
}

#[test]
fn retain_keys_clears_the_others() {
    let now = json!({"metadata": {"name": "d"}, "spec": {"selector": {}, "template": {}, "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}});
    let patch = json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}});
    let registry = Registry::builtin();
    let kind = registry.resource("apps", "v1", "deployments").unwrap();
    let patched = kind
        .patch(
            &registry,
            PatchType::Strategic,
            &now,
            patch.to_string().as_bytes(),
            FieldValidation::Strict,
        )
        .unwrap();
    assert_eq!(
        patched.object["spec"]["strategy"],
        json!({"type": "Recreate"})
    );
}

#[test]
fn ports_merge_by_their_number() {
    let now = json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80, "targetPort": 1}, {"port": 81, "targetPort": 2}]}});
    let patch = json!({"spec": {"ports": [{"port": 81, "targetPort": 3}]}});
    let registry = Registry::builtin();
    let kind = registry.resource("", "v1", "services").unwrap();
    let patched = kind
        .patch(
            &registry,
            PatchType::Strategic,
            &now,
            patch.to_string().as_bytes(),
            FieldValidation::Strict,
        )
        .unwrap();
    assert_eq!(
        patched.object["spec"]["ports"],
        json!([{"port": 80, "targetPort": 1}, {"port": 81, "targetPort": 3}])
    );
}

fn refused(patch_type: PatchType, patch: Value) -> Failure {
    let registry = Registry::builtin();
    let kind = registry.resource("", "v1", "configmaps").unwrap();
    let now = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"k": "v"}});
    kind.patch(
        &registry,
        patch_type,
        &now,
        patch.to_string().as_bytes(),
        FieldValidation::Strict,
    )
    .unwrap_err()
}

#[test]
fn refusals() {
    let failure = refused(PatchType::Merge, json!({"nope": 1}));
    assert_eq!(failure.code, 422);
    assert!(
        failure
            .message
            .starts_with(" \"\" is invalid: patch: Invalid value: "),
        "{}",
        failure.message
    );
    assert!(
        failure
            .message
            .ends_with("strict decoding error: unknown field \"nope\"")
    );
    let failure = refused(PatchType::Strategic, json!({"metadata": {"nope": 1}}));
    assert_eq!(
        failure.message,
        " \"\" is invalid: patch: Invalid value: \"map[metadata:map[nope:1]]\": strict decoding error: unknown field \"metadata.nope\""
    );
    assert_eq!(
        refused(
            PatchType::Json,
            json!([{"op": "test", "path": "/data/k", "value": "x"}])
        )
        .code,
        422
    );
    assert_eq!(refused(PatchType::Json, json!({"op": "add"})).code, 400);
    assert_eq!(refused(PatchType::Merge, json!([1])).code, 400);
    assert_eq!(
        refused(PatchType::Merge, json!({"kind": "Secret"})).code,
        400
    );
    assert_eq!(
        refused(PatchType::Merge, json!({"data": {"k": 5}})).code,
        422
    );
    let many: Vec<Value> = (0..10_001)
        .map(|_| json!({"op": "remove", "path": "/data/k"}))
        .collect();
    assert_eq!(refused(PatchType::Json, Value::Array(many)).code, 413);
}
