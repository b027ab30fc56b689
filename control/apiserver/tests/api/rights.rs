//! Rights follow their objects at once.

use crate::harness::{Api, As};

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";

#[tokio::test]
async fn a_binding_counts_for_the_next_request() {
    let api = Api::start().await;
    let token = api
        .create(
            "/api/v1/namespaces/default/serviceaccounts/default/token",
            r#"{"spec":{}}"#,
        )
        .await;
    let token = token["status"]["token"]
        .as_str()
        .expect("a token")
        .to_owned();
    let get = "GET /api/v1/namespaces/default/configmaps";
    let refused = api.ask_as(As::Token(&token), get, "", &[]).await;
    let status = refused.json();
    assert_eq!(
        (refused.code, status["details"]["kind"].as_str()),
        (403, Some("configmaps"))
    );
    let role = r#"{"metadata":{"name":"r"},"rules":[{"apiGroups":[""],"resources":["configmaps"],"verbs":["list"]}]}"#;
    api.create(&format!("{RBAC}/roles"), role).await;
    let binding = r#"{"metadata":{"name":"b"},"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"Role","name":"r"},"subjects":[{"kind":"ServiceAccount","name":"default","namespace":"default"}]}"#;
    api.create(&format!("{RBAC}/rolebindings"), binding).await;
    assert_eq!(api.ask_as(As::Token(&token), get, "", &[]).await.code, 200);
    // 403 comes before 404, and before the body is read.
    let missing = "GET /api/v1/namespaces/default/secrets/missing";
    assert_eq!(
        api.ask_as(As::Token(&token), missing, "", &[]).await.code,
        403
    );
    let post = "POST /api/v1/namespaces/default/secrets";
    assert_eq!(
        api.ask_as(As::Token(&token), post, "{", &[]).await.code,
        403
    );
    api.check(&format!("DELETE {RBAC}/rolebindings/b"), "", "200")
        .await;
    assert_eq!(api.ask_as(As::Token(&token), get, "", &[]).await.code, 403);
}

#[tokio::test]
async fn nobody_grants_what_they_do_not_have() {
    let api = Api::start().await;
    let token = api
        .create(
            "/api/v1/namespaces/default/serviceaccounts/default/token",
            r#"{"spec":{}}"#,
        )
        .await;
    let token = token["status"]["token"]
        .as_str()
        .expect("a token")
        .to_owned();
    let role = r#"{"metadata":{"name":"r"},"rules":[{"apiGroups":["rbac.authorization.k8s.io"],"resources":["roles"],"verbs":["create"]}]}"#;
    api.create(&format!("{RBAC}/roles"), role).await;
    let binding = r#"{"metadata":{"name":"b"},"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"Role","name":"r"},"subjects":[{"kind":"ServiceAccount","name":"default","namespace":"default"}]}"#;
    api.create(&format!("{RBAC}/rolebindings"), binding).await;
    let more = r#"{"metadata":{"name":"more"},"rules":[{"apiGroups":[""],"resources":["secrets"],"verbs":["get"]}]}"#;
    let answer = api
        .ask_as(As::Token(&token), &format!("POST {RBAC}/roles"), more, &[])
        .await;
    assert_eq!(answer.code, 403, "{}", answer.text);
    let same = role.replace("\"r\"", "\"same\"");
    assert_eq!(
        api.ask_as(As::Token(&token), &format!("POST {RBAC}/roles"), &same, &[])
            .await
            .code,
        201
    );
}

#[tokio::test]
async fn an_aggregated_role_shows_its_rules() {
    let api = Api::start().await;
    let roles = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
    let made = api.check(&format!("GET {roles}"), "", "200").await;
    let version = made["metadata"]["resourceVersion"]
        .as_str()
        .expect("a version");
    let path =
        format!("{roles}?watch=1&fieldSelector=metadata.name%3Dview&resourceVersion={version}");
    let mut watch = api.watch(&path).await;
    let role = r#"{"metadata":{"name":"more","labels":{"rbac.authorization.k8s.io/aggregate-to-view":"true"}},"rules":[{"apiGroups":["a.test"],"resources":["widgets"],"verbs":["get"]}]}"#;
    api.create(roles, role).await;
    let shown = |event: &serde_json::Value| event["object"]["rules"].to_string().contains("a.test");
    while !shown(&watch.next().await.expect("the watch goes on")) {}
}
