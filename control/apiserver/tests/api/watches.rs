//! Watches: what is replayed, what follows, what selectors make of it.

use crate::harness::{Api, dig};

const CMS: &str = "/api/v1/namespaces/default/configmaps";

async fn make(api: &Api, name: &str, label: &str) -> String {
    let body = format!(r#"{{"metadata":{{"name":"{name}","labels":{{"l":"{label}"}}}}}}"#);
    let made = api.create(CMS, &body).await;
    made["metadata"]["resourceVersion"]
        .as_str()
        .expect("a version")
        .to_owned()
}

#[tokio::test]
async fn from_now_from_then_and_from_the_start() {
    let api = Api::start().await;
    let first = make(&api, "a", "x").await;
    make(&api, "b", "x").await;
    let mut all = api.watch(&format!("{CMS}?watch=true")).await;
    assert_eq!(
        [all.short().await, all.short().await],
        ["ADDED a", "ADDED b"]
    );
    let mut later = api
        .watch(&format!("{CMS}?watch=true&resourceVersion={first}"))
        .await;
    assert_eq!(later.short().await, "ADDED b");
    api.check(&format!("PATCH {CMS}/a"), r#"{"data":{"k":"v"}}"#, "200")
        .await;
    api.check(&format!("DELETE {CMS}/a"), "", "200").await;
    assert_eq!(all.short().await, "MODIFIED a");
    let gone = all.next().await.expect("the watch goes on");
    assert_eq!(gone["type"], "DELETED");
    let version = gone["object"]["metadata"]["resourceVersion"]
        .as_str()
        .expect("a version");
    assert!(
        version.parse::<u64>().expect("a number") > first.parse().expect("a number"),
        "of the deletion itself"
    );
    assert_eq!(
        [later.short().await, later.short().await],
        ["MODIFIED a", "DELETED a"]
    );
}

#[tokio::test]
async fn entering_and_leaving_a_selection() {
    let api = Api::start().await;
    let mut watch = api
        .watch(&format!("{CMS}?watch=true&labelSelector=l%3Dx"))
        .await;
    make(&api, "a", "y").await;
    make(&api, "b", "x").await;
    assert_eq!(watch.short().await, "ADDED b");
    api.check(
        &format!("PATCH {CMS}/a"),
        r#"{"metadata":{"labels":{"l":"x"}}}"#,
        "200",
    )
    .await;
    assert_eq!(watch.short().await, "ADDED a");
    api.check(
        &format!("PATCH {CMS}/a"),
        r#"{"metadata":{"labels":{"l":"z"}}}"#,
        "200",
    )
    .await;
    assert_eq!(watch.short().await, "DELETED a");
    let mut one = api
        .watch(&format!("{CMS}?watch=true&fieldSelector=metadata.name%3Db"))
        .await;
    assert_eq!(one.short().await, "ADDED b");
}

#[tokio::test]
async fn the_streaming_list_ends_with_a_bookmark() {
    let api = Api::start().await;
    make(&api, "a", "x").await;
    let path = format!(
        "{CMS}?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    );
    let mut watch = api.watch(&path).await;
    assert_eq!(watch.short().await, "ADDED a");
    let bookmark = watch.next().await.expect("the watch goes on");
    assert_eq!(bookmark["type"], "BOOKMARK");
    assert_eq!(
        bookmark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"],
        "true"
    );
    make(&api, "b", "x").await;
    assert_eq!(watch.short().await, "ADDED b");
    api.check(
        &format!("GET {CMS}?watch=true&sendInitialEvents=true"),
        "",
        r#"422 reason="Invalid""#,
    )
    .await;
}

#[tokio::test]
async fn too_old_and_too_new() {
    let api = Api::start().await;
    let mut watch = api
        .watch(&format!("{CMS}?watch=true&resourceVersion=1"))
        .await;
    let event = watch.next().await.expect("an event that says so");
    assert_eq!(
        (
            &event["type"],
            &event["object"]["code"],
            &event["object"]["reason"]
        ),
        (&"ERROR".into(), &410.into(), &"Expired".into())
    );
    assert_eq!(watch.short().await, "end");
    let future = api
        .ask(
            &format!("GET {CMS}?resourceVersion=999999999&resourceVersionMatch=NotOlderThan"),
            "",
        )
        .await;
    let cause = future.json();
    assert_eq!(
        (future.code, dig(&cause, "details.causes.0.reason")),
        (504, Some(&"ResourceVersionTooLarge".into()))
    );
}

#[tokio::test]
async fn a_watch_ends_when_it_was_asked_to_and_with_the_server() {
    let api = Api::start().await;
    let mut short = api
        .watch(&format!("{CMS}?watch=true&timeoutSeconds=1"))
        .await;
    assert_eq!(short.short().await, "end");
    let mut open = api.watch(&format!("{CMS}?watch=true")).await;
    let api = api.restart().await;
    assert_eq!(open.short().await, "end");
    make(&api, "a", "x").await;
}

#[tokio::test]
async fn the_old_form_of_a_watch() {
    let api = Api::start().await;
    make(&api, "a", "x").await;
    let mut watch = api
        .watch("/api/v1/watch/namespaces/default/configmaps")
        .await;
    assert_eq!(watch.short().await, "ADDED a");
}
