//! Lists: pages, selectors, versions, shapes.

use crate::harness::{Api, As};

const CMS: &str = "/api/v1/namespaces/default/configmaps";

async fn make(api: &Api, names: &[&str]) {
    for name in names {
        api.create(CMS, &format!(r#"{{"metadata":{{"name":"{name}"}}}}"#))
            .await;
    }
}

fn names(list: &serde_json::Value) -> String {
    let items = list["items"].as_array().into_iter().flatten();
    items
        .filter_map(|item| item["metadata"]["name"].as_str())
        .collect::<Vec<_>>()
        .join(" ")
}

#[tokio::test]
async fn pages_are_one_snapshot() {
    let api = Api::start().await;
    make(&api, &["a", "b", "c", "d", "e"]).await;
    let first = api
        .check(
            &format!("GET {CMS}?limit=2"),
            "",
            "200 metadata.remainingItemCount=3",
        )
        .await;
    api.check(&format!("DELETE {CMS}/d"), "", "200").await;
    make(&api, &["bb"]).await;
    let token = first["metadata"]["continue"]
        .as_str()
        .expect("more to come");
    let second = api
        .check(
            &format!("GET {CMS}?limit=2&continue={token}"),
            "",
            "200 metadata.remainingItemCount=1",
        )
        .await;
    let token = second["metadata"]["continue"]
        .as_str()
        .expect("more to come");
    let third = api
        .check(
            &format!("GET {CMS}?limit=2&continue={token}"),
            "",
            "200 metadata.continue=-",
        )
        .await;
    assert_eq!(
        [names(&first), names(&second), names(&third)],
        ["a b", "c d", "e"]
    );
    assert_eq!(
        first["metadata"]["resourceVersion"],
        third["metadata"]["resourceVersion"]
    );
    api.check(
        &format!("GET {CMS}?limit=2&continue=nonsense"),
        "",
        r#"400 reason="BadRequest""#,
    )
    .await;
}

#[tokio::test]
async fn an_old_version_is_shown_as_it_was() {
    let api = Api::start().await;
    make(&api, &["a"]).await;
    let then = api.check(&format!("GET {CMS}"), "", "200").await;
    make(&api, &["b"]).await;
    let version = then["metadata"]["resourceVersion"]
        .as_str()
        .expect("a version");
    let exact = api
        .check(
            &format!("GET {CMS}?resourceVersion={version}&resourceVersionMatch=Exact"),
            "",
            "200",
        )
        .await;
    let newer = api
        .check(&format!("GET {CMS}?resourceVersion={version}"), "", "200")
        .await;
    assert_eq!([names(&exact), names(&newer)], ["a", "a b"]);
    api.check(
        &format!("GET {CMS}?resourceVersion=1&resourceVersionMatch=Exact"),
        "",
        r#"410 reason="Expired""#,
    )
    .await;
    api.check(&format!("GET {CMS}?resourceVersion=abc"), "", "400")
        .await;
    api.check(&format!("GET {CMS}?resourceVersionMatch=Exact"), "", "422")
        .await;
}

#[tokio::test]
async fn selectors() {
    let api = Api::start().await;
    let pods = "/api/v1/namespaces/default/pods";
    for name in ["a", "b"] {
        let pod = format!(
            r#"{{"metadata":{{"name":"{name}"}},"spec":{{"containers":[{{"name":"c","image":"i"}}]}}}}"#
        );
        api.create(pods, &pod).await;
    }
    api.check(
        &format!("POST {pods}/a/binding"),
        r#"{"target":{"name":"n"}}"#,
        "201",
    )
    .await;
    let selected = |selector: &'static str| {
        let api = &api;
        async move {
            names(
                &api.check(&format!("GET {pods}?fieldSelector={selector}"), "", "200")
                    .await,
            )
        }
    };
    assert_eq!(selected("spec.nodeName%3Dn").await, "a");
    assert_eq!(selected("spec.nodeName%21%3Dn").await, "b");
    assert_eq!(selected("metadata.name%3Db").await, "b");
    assert_eq!(
        selected("status.phase%3DPending,metadata.namespace%3Ddefault").await,
        "a b"
    );
    api.check(
        &format!("GET {pods}?fieldSelector=spec.nothing%3Dx"),
        "",
        "400",
    )
    .await;
    api.check(&format!("GET {pods}?labelSelector=%21%21"), "", "400")
        .await;
}

#[tokio::test]
async fn an_empty_list_has_items() {
    let api = Api::start().await;
    api.check(
        "GET /api/v1/namespaces/nowhere/configmaps",
        "",
        r#"200 kind="ConfigMapList" items=[]"#,
    )
    .await;
}

#[tokio::test]
async fn shapes_and_encodings() {
    let api = Api::start().await;
    make(&api, &["a"]).await;
    let get = |path: String, accept: &'static str| {
        let api = &api;
        async move {
            api.ask_as(As::Admin, &format!("GET {path}"), "", &[("accept", accept)])
                .await
        }
    };
    let table = get(
        CMS.to_owned(),
        "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
    )
    .await
    .json();
    assert_eq!(
        (
            table["kind"].as_str(),
            table["rows"][0]["cells"][0].as_str()
        ),
        (Some("Table"), Some("a"))
    );
    assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    let partial = get(
        CMS.to_owned(),
        "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
    )
    .await
    .json();
    assert_eq!(
        (
            partial["kind"].as_str(),
            partial["items"][0]["data"].as_str()
        ),
        (Some("PartialObjectMetadataList"), None)
    );
    let yaml = get(format!("{CMS}/a"), "application/yaml").await;
    assert!(yaml.text.starts_with("apiVersion: v1\n"), "{}", yaml.text);
    let protobuf = get(format!("{CMS}/a"), "application/vnd.kubernetes.protobuf").await;
    assert!(protobuf.text.starts_with("k8s\0"), "{}", protobuf.text);
    assert_eq!(get(CMS.to_owned(), "text/csv").await.code, 406);
}
