//! Health, discovery, OpenAPI, version, metrics.

use crate::harness::{Api, As};

#[tokio::test]
async fn health() {
    let api = Api::start().await;
    for path in [
        "/livez",
        "/readyz",
        "/healthz",
        "/livez/ping",
        "/readyz/etcd",
    ] {
        let answer = api
            .ask_as(As::Anonymous, &format!("GET {path}"), "", &[])
            .await;
        assert_eq!((answer.code, answer.text.as_str()), (200, "ok"), "{path}");
    }
    let verbose = api.ask("GET /readyz?verbose", "").await.text;
    assert!(
        verbose.starts_with("[+]ping ok\n") && verbose.ends_with("readyz check passed\n"),
        "{verbose}"
    );
    assert_eq!(api.ask("GET /livez/nothing", "").await.code, 404);
}

#[tokio::test]
async fn discovery() {
    let api = Api::start().await;
    api.check("GET /version", "", r#"200 major="1" minor="36""#)
        .await;
    api.check("GET /api", "", r#"200 kind="APIVersions" versions=["v1"]"#)
        .await;
    api.check("GET /apis", "", r#"200 kind="APIGroupList""#)
        .await;
    api.check(
        "GET /apis/apps/v1",
        "",
        r#"200 kind="APIResourceList" groupVersion="apps/v1""#,
    )
    .await;
    api.check("GET /apis/apps/v9", "", r#"404 kind="Status""#)
        .await;
    assert_eq!(
        api.ask("GET /apis/nowhere.test", "").await.text,
        "404 page not found\n"
    );
    let accept = (
        "accept",
        "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
    );
    let all = api.ask_as(As::Admin, "GET /apis", "", &[accept]).await;
    assert_eq!(all.json()["kind"], "APIGroupDiscoveryList");
    let tag = all.headers["etag"].to_str().expect("a tag").to_owned();
    let again = api
        .ask_as(
            As::Admin,
            "GET /apis",
            "",
            &[accept, ("if-none-match", &tag)],
        )
        .await;
    assert_eq!((again.code, again.text.as_str()), (304, ""));
}

#[tokio::test]
async fn openapi() {
    let api = Api::start().await;
    let index = api.check("GET /openapi/v3", "", "200").await;
    let url = index["paths"]["apis/apps/v1"]["serverRelativeURL"]
        .as_str()
        .expect("a document");
    let document = api.ask(&format!("GET {url}"), "").await;
    assert_eq!(document.code, 200);
    assert_eq!(document.headers["cache-control"], "public, immutable");
    assert!(document.json()["components"]["schemas"]["io.k8s.api.apps.v1.Deployment"].is_object());
    assert_eq!(
        api.ask("GET /openapi/v3/apis/apps/v1?hash=OLD", "")
            .await
            .headers["location"],
        url
    );
    assert_eq!(api.ask("GET /openapi/v3/apis/nowhere", "").await.code, 404);
    let packed = api
        .ask_as(
            As::Admin,
            "GET /openapi/v2",
            "",
            &[("accept-encoding", "gzip")],
        )
        .await;
    assert_eq!(packed.headers["content-encoding"], "gzip");
}

#[tokio::test]
async fn metrics() {
    let api = Api::start().await;
    api.ask("GET /api/v1/namespaces", "").await;
    api.ask("GET /apis/made.up/v1/whatever", "").await;
    let text = api.ask("GET /metrics", "").await.text;
    for name in [
        "apiserver_request_total{",
        "apiserver_request_duration_seconds_bucket{",
        "process_resident_memory_bytes",
    ] {
        assert!(text.contains(name), "{name} in {text}");
    }
    assert!(!text.contains("made.up"), "strangers make no series");
}

#[tokio::test]
async fn strangers() {
    let api = Api::start().await;
    for path in ["/api/v1/namespaces", "/metrics", "/apis/nowhere.test/v1/x"] {
        let code = api
            .ask_as(As::Anonymous, &format!("GET {path}"), "", &[])
            .await
            .code;
        assert!(matches!(code, 401 | 403), "{path}: {code}");
    }
    assert_eq!(
        api.ask_as(As::Token("nonsense"), "GET /api/v1/namespaces", "", &[])
            .await
            .code,
        401
    );
}
