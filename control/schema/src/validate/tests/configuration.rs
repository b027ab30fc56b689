use serde_json::json;

use super::check;

#[test]
fn configuration() {
    let key = crate::names::config_key("a/b").remove(0);
    check(
        "configmaps",
        "/data",
        json!({"a/b": ""}),
        &[&format!("data[a/b]: Invalid value: \"a/b\": {key}")],
    );
    check(
        "configmaps",
        "/data",
        json!({"a": "x".repeat(1_048_577)}),
        &["[]: Too long: may not be more than 1048576 bytes"],
    );
    check(
        "secrets",
        "/type",
        json!("kubernetes.io/tls"),
        &[
            "data[tls.crt]: Required value",
            "data[tls.key]: Required value",
        ],
    );
}
