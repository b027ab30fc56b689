//! Custom resources.

use crate::harness::{Api, As};

const CRDS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const WIDGETS: &str = "/apis/a.test/v1/namespaces/default/widgets";
const DEFINITION: &str = r#"{
    "metadata": {"name": "widgets.a.test"},
    "spec": {
        "group": "a.test", "scope": "Namespaced",
        "names": {"kind": "Widget", "plural": "widgets", "shortNames": ["wd"]},
        "versions": [{
            "name": "v1", "served": true, "storage": true,
            "subresources": {"status": {}},
            "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                "spec": {"type": "object", "properties": {"size": {"type": "integer", "default": 3}}},
                "status": {"type": "object", "properties": {"ready": {"type": "boolean"}}}
            }}}
        }]
    }
}"#;

#[tokio::test]
async fn a_new_kind_is_served_at_once() {
    let api = Api::start().await;
    assert_eq!(api.ask(&format!("GET {WIDGETS}"), "").await.code, 404);
    let definition = api
        .check(
            &format!("POST {CRDS}"),
            DEFINITION,
            r#"201 status.acceptedNames.kind="Widget""#,
        )
        .await;
    let conditions = definition["status"]["conditions"]
        .as_array()
        .expect("conditions");
    assert!(
        conditions
            .iter()
            .all(|condition| condition["status"] == "True"),
        "{conditions:?}"
    );
    api.check(
        "GET /apis/a.test/v1",
        "",
        r#"200 resources.0.name="widgets""#,
    )
    .await;
    let widget = r#"{"apiVersion":"a.test/v1","kind":"Widget","metadata":{"name":"w"},"spec":{"nope":1},"status":{"ready":true}}"#;
    api.check(
        &format!("POST {WIDGETS}"),
        widget,
        "201 spec.size=3 spec.nope=- status=- metadata.generation=1",
    )
    .await;
    api.check(
        &format!("PATCH {WIDGETS}/w/status"),
        r#"{"status":{"ready":true}}"#,
        "200 status.ready=true metadata.generation=1",
    )
    .await;
    api.check(
        &format!("PATCH {WIDGETS}/w"),
        r#"{"spec":{"size":"big"}}"#,
        r#"422 reason="Invalid""#,
    )
    .await;
    api.check(&format!("PUT {WIDGETS}/w"), widget, "422").await;
    let strategic = [("content-type", "application/strategic-merge-patch+json")];
    assert_eq!(
        api.ask_as(As::Admin, &format!("PATCH {WIDGETS}/w"), "{}", &strategic)
            .await
            .code,
        415
    );
    let api = api.restart().await;
    api.check(&format!("GET {WIDGETS}/w"), "", "200 status.ready=true")
        .await;
}

#[tokio::test]
async fn a_kind_goes_with_its_objects() {
    let api = Api::start().await;
    api.create(CRDS, DEFINITION).await;
    let widget = r#"{"apiVersion":"a.test/v1","kind":"Widget","metadata":{"name":"w","finalizers":["a.test/x"]}}"#;
    api.create(WIDGETS, widget).await;
    let version =
        api.check(&format!("GET {CRDS}"), "", "200").await["metadata"]["resourceVersion"].clone();
    let mut watch = api
        .watch(&format!(
            "{CRDS}?watch=1&resourceVersion={}",
            version.as_str().unwrap_or_default()
        ))
        .await;
    api.check(&format!("DELETE {CRDS}/widgets.a.test"), "", "200")
        .await;
    while watch.short().await != "DELETED widgets.a.test" {}
    assert_eq!(api.ask(&format!("GET {WIDGETS}/w"), "").await.code, 404);
    api.create(CRDS, DEFINITION).await;
    api.check(&format!("GET {WIDGETS}"), "", "200 items=[]")
        .await;
}
