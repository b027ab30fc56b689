use serde_json::json;

use super::check;

#[test]
fn webhooks() {
    check(
        "mutatingwebhookconfigurations",
        "/webhooks/0/name",
        json!("a"),
        &[
            "webhooks[0].name: Invalid value: \"a\": should be a domain with at least three segments separated by dots",
        ],
    );
    check(
        "mutatingwebhookconfigurations",
        "/webhooks/0/timeoutSeconds",
        json!(31),
        &[
            "webhooks[0].timeoutSeconds: Invalid value: 31: the timeout value must be between 1 and 30 seconds",
        ],
    );
    check(
        "mutatingwebhookconfigurations",
        "/webhooks/0/clientConfig",
        json!({}),
        &["webhooks[0].clientConfig: Required value: exactly one of url or service is required"],
    );
}
