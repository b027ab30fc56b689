//! Deletion: grace, finalizers, propagation, preconditions, collections, namespaces.

use crate::harness::Api;

const CMS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";
const POD: &str = r#"{"metadata":{"name":"p"},"spec":{"containers":[{"name":"c","image":"i"}]}}"#;

#[tokio::test]
async fn finalizers_hold_an_object() {
    let api = Api::start().await;
    api.create(
        CMS,
        r#"{"metadata":{"name":"a","finalizers":["x.test/y"]}}"#,
    )
    .await;
    let held = api
        .check(
            &format!("DELETE {CMS}/a"),
            "",
            r#"200 kind="ConfigMap" metadata.finalizers=["x.test/y"]"#,
        )
        .await;
    assert!(held["metadata"]["deletionTimestamp"].is_string());
    api.check(
        &format!("POST {CMS}"),
        r#"{"metadata":{"name":"a"}}"#,
        r#"409 reason="AlreadyExists""#,
    )
    .await;
    let mut watch = api
        .watch(&format!(
            "{CMS}?watch=1&resourceVersion={}",
            held["metadata"]["resourceVersion"]
                .as_str()
                .unwrap_or_default()
        ))
        .await;
    api.check(
        &format!("PATCH {CMS}/a"),
        r#"{"metadata":{"finalizers":null}}"#,
        "200",
    )
    .await;
    assert_eq!(watch.short().await, "DELETED a");
    api.check(&format!("GET {CMS}/a"), "", "404").await;
}

#[tokio::test]
async fn a_bound_pod_waits_for_its_node() {
    let api = Api::start().await;
    api.create(PODS, POD).await;
    api.check(
        &format!("POST {PODS}/p/binding"),
        r#"{"target":{"kind":"Node","name":"n"}}"#,
        r#"201 status="Success""#,
    )
    .await;
    api.check(
        &format!("DELETE {PODS}/p"),
        "",
        "200 metadata.deletionGracePeriodSeconds=30",
    )
    .await;
    api.check(
        &format!("DELETE {PODS}/p?gracePeriodSeconds=60"),
        "",
        "200 metadata.deletionGracePeriodSeconds=30",
    )
    .await;
    api.check(
        &format!("DELETE {PODS}/p?gracePeriodSeconds=5"),
        "",
        "200 metadata.deletionGracePeriodSeconds=5",
    )
    .await;
    api.check(
        &format!("DELETE {PODS}/p"),
        r#"{"gracePeriodSeconds":0}"#,
        "200",
    )
    .await;
    api.check(&format!("GET {PODS}/p"), "", "404").await;
}

#[tokio::test]
async fn an_unbound_pod_goes_at_once() {
    let api = Api::start().await;
    api.create(PODS, POD).await;
    api.check(
        &format!("DELETE {PODS}/p"),
        "",
        r#"200 kind="Pod" metadata.deletionGracePeriodSeconds=0"#,
    )
    .await;
    api.check(&format!("GET {PODS}/p"), "", "404").await;
}

#[tokio::test]
async fn propagation_is_written_as_finalizers() {
    let api = Api::start().await;
    api.create(CMS, r#"{"metadata":{"name":"a"}}"#).await;
    api.check(
        &format!("DELETE {CMS}/a?propagationPolicy=Foreground"),
        "",
        r#"200 metadata.finalizers=["foregroundDeletion"]"#,
    )
    .await;
    api.create(CMS, r#"{"metadata":{"name":"b"}}"#).await;
    api.check(
        &format!("DELETE {CMS}/b"),
        r#"{"propagationPolicy":"Orphan"}"#,
        r#"200 metadata.finalizers=["orphan"]"#,
    )
    .await;
    api.create(CMS, r#"{"metadata":{"name":"c"}}"#).await;
    api.check(
        &format!("DELETE {CMS}/c"),
        r#"{"propagationPolicy":"Sideways"}"#,
        r#"422 reason="Invalid""#,
    )
    .await;
}

#[tokio::test]
async fn preconditions() {
    let api = Api::start().await;
    let made = api.create(CMS, r#"{"metadata":{"name":"a"}}"#).await;
    api.check(
        &format!("DELETE {CMS}/a"),
        r#"{"preconditions":{"uid":"other"}}"#,
        r#"409 reason="Conflict""#,
    )
    .await;
    api.check(
        &format!("DELETE {CMS}/a"),
        r#"{"preconditions":{"resourceVersion":"1"}}"#,
        "409",
    )
    .await;
    let body = format!(
        r#"{{"preconditions":{{"uid":{}}}}}"#,
        made["metadata"]["uid"]
    );
    api.check(
        &format!("DELETE {CMS}/a"),
        &body,
        r#"200 status="Success" details.name="a""#,
    )
    .await;
}

#[tokio::test]
async fn a_collection_goes_by_selector() {
    let api = Api::start().await;
    for (name, label) in [("a", "x"), ("b", "x"), ("c", "y")] {
        api.create(
            CMS,
            &format!(r#"{{"metadata":{{"name":"{name}","labels":{{"l":"{label}"}}}}}}"#),
        )
        .await;
    }
    api.check(
        &format!("DELETE {CMS}?labelSelector=l%3Dx"),
        "",
        r#"200 kind="ConfigMapList" items.1.metadata.name="b""#,
    )
    .await;
    api.check(
        &format!("GET {CMS}?labelSelector=l"),
        "",
        r#"200 items.0.metadata.name="c" items.1=-"#,
    )
    .await;
}

#[tokio::test]
async fn a_namespace_is_emptied_before_it_goes() {
    let api = Api::start().await;
    let namespace = api
        .check(
            "POST /api/v1/namespaces",
            r#"{"metadata":{"name":"n"}}"#,
            r#"201 spec.finalizers=["kubernetes"] status.phase="Active""#,
        )
        .await;
    assert_eq!(
        namespace["metadata"]["labels"]["kubernetes.io/metadata.name"],
        "n"
    );
    api.check(
        "DELETE /api/v1/namespaces/n",
        "",
        r#"200 status.phase="Terminating""#,
    )
    .await;
    api.check(
        "DELETE /api/v1/namespaces/n",
        "",
        r#"409 reason="Conflict""#,
    )
    .await;
    api.check(
        "POST /api/v1/namespaces/n/configmaps",
        r#"{"metadata":{"name":"a"}}"#,
        r#"403 details.causes.0.reason="NamespaceTerminating""#,
    )
    .await;
    api.check(
        "PUT /api/v1/namespaces/n/finalize",
        r#"{"metadata":{"name":"n"},"spec":{"finalizers":[]}}"#,
        "200",
    )
    .await;
    api.check("GET /api/v1/namespaces/n", "", "404").await;
    api.check(
        "POST /api/v1/namespaces/n/configmaps",
        r#"{"metadata":{"name":"a"}}"#,
        r#"404 details.kind="namespaces""#,
    )
    .await;
    api.check(
        "DELETE /api/v1/namespaces/default",
        "",
        r#"403 reason="Forbidden""#,
    )
    .await;
}
