//! Scale, binding, eviction, token, log.

use crate::harness::{Api, As};

const PODS: &str = "/api/v1/namespaces/default/pods";
const POD: &str = r#"{"metadata":{"name":"p"},"spec":{"containers":[{"name":"c","image":"i"}]}}"#;

#[tokio::test]
async fn scale() {
    let api = Api::start().await;
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    let deployment = r#"{"metadata":{"name":"d"},"spec":{"selector":{"matchLabels":{"a":"b"}},"template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"i"}]}}}}"#;
    api.create(deployments, deployment).await;
    let scale = format!("{deployments}/d/scale");
    let got = api
        .check(
            &format!("GET {scale}"),
            "",
            r#"200 kind="Scale" apiVersion="autoscaling/v1" spec.replicas=1 status.selector="a=b""#,
        )
        .await;
    api.check(
        &format!("PATCH {scale}"),
        r#"{"spec":{"replicas":3}}"#,
        r#"200 kind="Scale" spec.replicas=3"#,
    )
    .await;
    api.check(
        &format!("GET {deployments}/d"),
        "",
        "200 spec.replicas=3 metadata.generation=2",
    )
    .await;
    api.check(
        &format!("PUT {scale}"),
        &got.to_string(),
        r#"409 reason="Conflict""#,
    )
    .await;
    api.check(
        &format!("PATCH {scale}"),
        r#"{"spec":{"replicas":-1}}"#,
        "422",
    )
    .await;
}

#[tokio::test]
async fn binding_happens_once() {
    let api = Api::start().await;
    api.create(PODS, POD).await;
    let bind = format!("POST {PODS}/p/binding");
    api.check(&bind, r#"{"target":{}}"#, "400").await;
    api.check(
        &bind,
        r#"{"metadata":{"annotations":{"x":"y"}},"target":{"kind":"Node","name":"n"}}"#,
        "201",
    )
    .await;
    api.check(&format!("GET {PODS}/p"), "", r#"200 spec.nodeName="n" status.conditions.0.type="PodScheduled" metadata.annotations.x="y""#).await;
    api.check(
        &bind,
        r#"{"target":{"kind":"Node","name":"m"}}"#,
        r#"409 reason="Conflict""#,
    )
    .await;
}

#[tokio::test]
async fn eviction() {
    let api = Api::start().await;
    api.create(PODS, POD).await;
    api.check(
        &format!("POST {PODS}/p/eviction"),
        r#"{"metadata":{"name":"p"}}"#,
        r#"201 status="Success""#,
    )
    .await;
    api.check(&format!("GET {PODS}/p"), "", "404").await;
}

#[tokio::test]
async fn a_token_is_its_account() {
    let api = Api::start().await;
    let path = "/api/v1/namespaces/default/serviceaccounts/default/token";
    let token = api
        .check(
            &format!("POST {path}"),
            r#"{"spec":{"expirationSeconds":600}}"#,
            r#"201 kind="TokenRequest""#,
        )
        .await;
    let token = token["status"]["token"]
        .as_str()
        .expect("a token")
        .to_owned();
    let who = r#"{"apiVersion":"authentication.k8s.io/v1","kind":"SelfSubjectReview"}"#;
    let me = api
        .ask_as(
            As::Token(&token),
            "POST /apis/authentication.k8s.io/v1/selfsubjectreviews",
            who,
            &[],
        )
        .await;
    assert_eq!(
        me.json()["status"]["userInfo"]["username"],
        "system:serviceaccount:default:default",
        "{}",
        me.text
    );
    let refused = api
        .ask_as(
            As::Token(&token),
            "GET /api/v1/namespaces/default/secrets",
            "",
            &[],
        )
        .await;
    assert_eq!(refused.code, 403);
    api.check(
        "DELETE /api/v1/namespaces/default/serviceaccounts/default",
        "",
        "200",
    )
    .await;
    let after = api
        .ask_as(
            As::Token(&token),
            "GET /api/v1/namespaces/default/secrets",
            "",
            &[],
        )
        .await;
    assert_eq!(after.code, 401, "a token dies with its account");
}

#[tokio::test]
async fn logs_need_a_node() {
    let api = Api::start().await;
    api.create(PODS, POD).await;
    let empty = api.ask(&format!("GET {PODS}/p/log"), "").await;
    assert_eq!((empty.code, empty.text.as_str()), (200, ""));
    api.check(
        &format!("GET {PODS}/p/log?container=other"),
        "",
        r#"400 reason="BadRequest""#,
    )
    .await;
    api.check(
        &format!("GET {PODS}/p/log?tailLines=-1"),
        "",
        r#"422 details.kind="PodLogOptions""#,
    )
    .await;
    api.check(
        &format!("POST {PODS}/p/binding"),
        r#"{"target":{"name":"n"}}"#,
        "201",
    )
    .await;
    api.check(
        &format!("GET {PODS}/p/log"),
        "",
        r#"404 details.kind="nodes""#,
    )
    .await;
    api.check(
        &format!("GET {PODS}/missing/log"),
        "",
        r#"404 details.kind="pods""#,
    )
    .await;
}
