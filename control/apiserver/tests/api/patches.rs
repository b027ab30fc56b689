//! Patches as the server applies them; the merging itself is tested with the schemas.

use crate::harness::{Api, As};

const CM: &str = "/api/v1/namespaces/default/configmaps/a";

#[tokio::test]
async fn three_kinds_of_patch() {
    let api = Api::start().await;
    api.create(
        "/api/v1/namespaces/default/configmaps",
        r#"{"metadata":{"name":"a"},"data":{"k":"1"}}"#,
    )
    .await;
    let patch = |kind: &'static str, body: &'static str| {
        let api = &api;
        async move {
            api.ask_as(
                As::Admin,
                &format!("PATCH {CM}"),
                body,
                &[("content-type", kind)],
            )
            .await
        }
    };
    let answer = patch(
        "application/merge-patch+json",
        r#"{"data":{"k":null,"l":"2"}}"#,
    )
    .await;
    assert_eq!(
        (answer.code, answer.json()["data"].to_string().as_str()),
        (200, r#"{"l":"2"}"#)
    );
    let answer = patch(
        "application/json-patch+json",
        r#"[{"op":"add","path":"/data/m","value":"3"}]"#,
    )
    .await;
    assert_eq!(
        (answer.code, answer.json()["data"]["m"].as_str()),
        (200, Some("3"))
    );
    let answer = patch(
        "application/strategic-merge-patch+json",
        r#"{"metadata":{"labels":{"a":"b"}}}"#,
    )
    .await;
    assert_eq!(
        (
            answer.code,
            answer.json()["metadata"]["labels"]["a"].as_str()
        ),
        (200, Some("b"))
    );
    assert_eq!(patch("application/apply-patch+yaml", "{}").await.code, 415);
    assert_eq!(patch("text/plain", "{}").await.code, 415);
    assert_eq!(
        patch(
            "application/json-patch+json",
            r#"[{"op":"test","path":"/data/m","value":"4"}]"#
        )
        .await
        .code,
        422
    );
    assert_eq!(patch("application/merge-patch+json", "{").await.code, 400);
    let answer = patch(
        "application/merge-patch+json",
        r#"{"metadata":{"resourceVersion":"1"}}"#,
    )
    .await;
    assert_eq!(answer.code, 409, "{}", answer.text);
}

#[tokio::test]
async fn racing_patches_all_count() {
    let api = Api::start().await;
    api.create(
        "/api/v1/namespaces/default/configmaps",
        r#"{"metadata":{"name":"a"},"data":{}}"#,
    )
    .await;
    let patches = (0..8).map(|n| {
        let body = format!(r#"{{"data":{{"k{n}":"v"}}}}"#);
        let api = &api;
        async move { api.check(&format!("PATCH {CM}"), &body, "200").await }
    });
    futures::future::join_all(patches).await;
    let object = api.check(&format!("GET {CM}"), "", "200").await;
    assert_eq!(
        object["data"].as_object().map(serde_json::Map::len),
        Some(8)
    );
}
