use serde_json::json;

use super::check;

#[test]
fn nodes() {
    check(
        "nodes",
        "/spec/taints/1",
        json!({"key": "a", "effect": "NoSchedule"}),
        &[
            "metadata.taints[1]: Duplicate value: {\"key\":\"a\",\"effect\":\"NoSchedule\"}: taints must be unique by key and effect pair",
        ],
    );
    check(
        "leases",
        "/spec/leaseDurationSeconds",
        json!(0),
        &["spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0"],
    );
}

#[test]
fn events() {
    check(
        "events",
        "/involvedObject/namespace",
        json!("other"),
        &["involvedObject.namespace: Invalid value: \"other\": does not match event.namespace"],
    );
}
