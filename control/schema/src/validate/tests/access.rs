use serde_json::json;

use super::check;

#[test]
fn access() {
    check(
        "roles",
        "/rules/0/verbs",
        json!([]),
        &["rules[0].verbs: Required value: verbs must contain at least one value"],
    );
    check(
        "rolebindings",
        "/roleRef/kind",
        json!("Pod"),
        &["roleRef.kind: Unsupported value: \"Pod\": supported values: \"Role\", \"ClusterRole\""],
    );
    check(
        "clusterrolebindings",
        "/subjects",
        json!([{"kind": "ServiceAccount", "name": "s"}]),
        &["subjects[0].namespace: Required value"],
    );
}
