//! The plain life of objects.

use crate::harness::Api;

const CMS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test]
async fn create_read_update() {
    let api = Api::start().await;
    let made = api
        .check(
            &format!("POST {CMS}"),
            r#"{"metadata":{"name":"a","uid":"x","creationTimestamp":"2001-01-01T00:00:00Z"},"data":{"k":"v"}}"#,
            r#"201 kind="ConfigMap" apiVersion="v1" metadata.namespace="default" data.k="v" metadata.generation=-"#,
        )
        .await;
    assert_ne!(made["metadata"]["uid"], "x");
    let version = made["metadata"]["resourceVersion"]
        .as_str()
        .expect("a version")
        .to_owned();
    api.check(
        &format!("GET {CMS}/a"),
        "",
        &format!(r#"200 metadata.resourceVersion="{version}""#),
    )
    .await;
    api.check(
        &format!("POST {CMS}"),
        r#"{"metadata":{"name":"a"}}"#,
        r#"409 reason="AlreadyExists" details.kind="configmaps""#,
    )
    .await;
    let next = api
        .check(
            &format!("PUT {CMS}/a"),
            r#"{"metadata":{"name":"a"},"data":{"k":"w"}}"#,
            r#"200 data.k="w""#,
        )
        .await;
    assert_eq!(next["metadata"]["uid"], made["metadata"]["uid"]);
    // A stale version is refused, an unchanged object gets no new one.
    let stale =
        format!(r#"{{"metadata":{{"name":"a","resourceVersion":"{version}"}},"data":{{}}}}"#);
    api.check(&format!("PUT {CMS}/a"), &stale, r#"409 reason="Conflict""#)
        .await;
    let version = &next["metadata"]["resourceVersion"];
    api.check(
        &format!("PUT {CMS}/a"),
        &next.to_string(),
        &format!("200 metadata.resourceVersion={version}"),
    )
    .await;
    api.check(
        &format!("PUT {CMS}/a"),
        r#"{"metadata":{"name":"b"}}"#,
        r#"400 reason="BadRequest""#,
    )
    .await;
    api.check(
        &format!("PUT {CMS}/a"),
        r#"{"metadata":{"name":"a","namespace":"other"}}"#,
        "400",
    )
    .await;
    api.check(
        &format!("PUT {CMS}/a"),
        r#"{"metadata":{"name":"a","uid":"y"}}"#,
        r#"409 reason="Conflict""#,
    )
    .await;
    api.check(
        &format!("PUT {CMS}/missing"),
        r#"{"metadata":{"name":"missing"}}"#,
        r#"404 details.name="missing""#,
    )
    .await;
}

#[tokio::test]
async fn generated_names() {
    let api = Api::start().await;
    let made = api
        .create(CMS, r#"{"metadata":{"generateName":"gen-"}}"#)
        .await;
    let name = made["metadata"]["name"].as_str().expect("a name");
    assert!(
        name.starts_with("gen-") && name.len() == "gen-".len() + 5,
        "{name}"
    );
}

#[tokio::test]
async fn dry_runs_leave_nothing() {
    let api = Api::start().await;
    api.check(
        &format!("POST {CMS}?dryRun=All"),
        r#"{"metadata":{"name":"a"}}"#,
        r#"201 metadata.resourceVersion=-"#,
    )
    .await;
    api.check(&format!("GET {CMS}/a"), "", "404").await;
    api.create(CMS, r#"{"metadata":{"name":"a"},"data":{"k":"1"}}"#)
        .await;
    api.check(
        &format!("PUT {CMS}/a?dryRun=All"),
        r#"{"metadata":{"name":"a"},"data":{"k":"2"}}"#,
        r#"200 data.k="2""#,
    )
    .await;
    api.check(
        &format!("DELETE {CMS}/a?dryRun=All"),
        "",
        r#"200 status="Success""#,
    )
    .await;
    api.check(&format!("GET {CMS}/a"), "", r#"200 data.k="1""#)
        .await;
    api.check(
        &format!("POST {CMS}?dryRun=true"),
        r#"{"metadata":{"name":"b"}}"#,
        r#"422 details.causes.0.field="dryRun""#,
    )
    .await;
}

#[tokio::test]
async fn objects_survive_a_restart() {
    let api = Api::start().await;
    let made = api
        .create(CMS, r#"{"metadata":{"name":"a"},"data":{"k":"v"}}"#)
        .await;
    let api = api.restart().await;
    let expected = format!(
        r#"200 data.k="v" metadata.uid={} metadata.resourceVersion={}"#,
        made["metadata"]["uid"], made["metadata"]["resourceVersion"]
    );
    api.check(&format!("GET {CMS}/a"), "", &expected).await;
}

#[tokio::test]
async fn a_lease_is_created_by_put() {
    let api = Api::start().await;
    let path = "/apis/coordination.k8s.io/v1/namespaces/default/leases/l";
    let lease = r#"{"metadata":{"name":"l"},"spec":{"holderIdentity":"a"}}"#;
    let expected = r#"201 spec.holderIdentity="a""#;
    let made = api.check(&format!("PUT {path}"), lease, expected).await;
    let without_version = r#"422 details.causes.0.field="metadata.resourceVersion""#;
    api.check(&format!("PUT {path}"), lease, without_version)
        .await;
    api.check(&format!("PUT {path}"), &made.to_string(), "200")
        .await;
}

#[tokio::test]
async fn unknown_fields_are_warned_about_or_refused() {
    let api = Api::start().await;
    let body = |name: &str| format!(r#"{{"metadata":{{"name":"{name}"}},"nope":1}}"#);
    let answer = api.ask(&format!("POST {CMS}"), &body("a")).await;
    assert_eq!(
        (answer.code, answer.warnings()),
        (201, vec![r#"299 - "unknown field \"nope\"""#.to_owned()])
    );
    assert!(answer.json().get("nope").is_none());
    api.check(
        &format!("POST {CMS}?fieldValidation=Strict"),
        &body("b"),
        r#"400 reason="BadRequest""#,
    )
    .await;
    let answer = api
        .ask(&format!("POST {CMS}?fieldValidation=Ignore"), &body("c"))
        .await;
    assert_eq!((answer.code, answer.warnings()), (201, vec![]));
}

#[tokio::test]
async fn generation_counts_changes_of_the_spec() {
    let api = Api::start().await;
    let path = "/apis/apps/v1/namespaces/default/deployments";
    let deployment = r#"{"metadata":{"name":"d"},"spec":{"selector":{"matchLabels":{"a":"b"}},"template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"i"}]}}}}"#;
    api.check(
        &format!("POST {path}"),
        deployment,
        "201 metadata.generation=1",
    )
    .await;
    api.check(
        &format!("PATCH {path}/d"),
        r#"{"metadata":{"labels":{"x":"y"}}}"#,
        "200 metadata.generation=1",
    )
    .await;
    api.check(
        &format!("PATCH {path}/d"),
        r#"{"spec":{"replicas":3}}"#,
        "200 metadata.generation=2",
    )
    .await;
    api.check(
        &format!("PATCH {path}/d/status"),
        r#"{"status":{"replicas":2},"spec":{"replicas":9}}"#,
        "200 metadata.generation=2 spec.replicas=3 status.replicas=2",
    )
    .await;
    api.check(
        &format!("PATCH {path}/d"),
        r#"{"status":{"replicas":7}}"#,
        "200 status.replicas=2",
    )
    .await;
}

#[tokio::test]
async fn one_event_store_under_two_groups() {
    let api = Api::start().await;
    let event = r#"{"metadata":{"name":"e"},"involvedObject":{"kind":"Pod","name":"p","namespace":"default"},"reason":"R","message":"m","type":"Normal"}"#;
    api.create("/api/v1/namespaces/default/events", event).await;
    api.check(
        "GET /apis/events.k8s.io/v1/namespaces/default/events/e",
        "",
        r#"200 apiVersion="events.k8s.io/v1" regarding.name="p" note="m""#,
    )
    .await;
    let selector = "fieldSelector=involvedObject.name%3Dp";
    api.check(
        &format!("GET /api/v1/namespaces/default/events?{selector}"),
        "",
        r#"200 items.0.reason="R""#,
    )
    .await;
    api.check(
        "GET /api/v1/namespaces/default/events?fieldSelector=involvedObject.name%3Dq",
        "",
        "200 items=[]",
    )
    .await;
}
