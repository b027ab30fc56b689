//! Bad and oversized requests.

use crate::harness::{Api, As};

const CMS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test]
async fn bodies_have_a_limit() {
    let api = Api::start().await;
    let large = format!(
        r#"{{"metadata":{{"name":"a"}},"data":{{"a":"{}"}}}}"#,
        "x".repeat(3 * 1024 * 1024)
    );
    api.check(
        &format!("POST {CMS}"),
        &large,
        r#"413 reason="RequestEntityTooLarge""#,
    )
    .await;
    let deep = format!("{}1{}", r#"{"a":"#.repeat(20_000), "}".repeat(20_000));
    api.check(&format!("POST {CMS}"), &deep, r#"400 reason="BadRequest""#)
        .await;
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let yaml = [("content-type", "application/yaml")];
    assert_eq!(
        api.ask_as(As::Admin, &format!("POST {CMS}"), &deep, &yaml)
            .await
            .code,
        400
    );
}

#[tokio::test]
async fn a_stored_object_has_a_limit() {
    let api = Api::start().await;
    let event = |bytes: usize| {
        let source = "x".repeat(bytes);
        format!(
            r#"{{"metadata":{{"name":"e"}},"involvedObject":{{"namespace":"default"}},"source":{{"component":"{source}"}}}}"#
        )
    };
    let path = "POST /api/v1/namespaces/default/events";
    let too_large = r#"413 reason="RequestEntityTooLarge""#;
    api.check(path, &event(1600 * 1024), too_large).await;
    api.check(path, &event(1000), "201").await;
}

#[tokio::test]
async fn patches_have_limits() {
    let api = Api::start().await;
    api.create(CMS, r#"{"metadata":{"name":"a"},"data":{"k":"v"}}"#)
        .await;
    let patch = |operations: Vec<String>| {
        let body = format!("[{}]", operations.join(","));
        let api = &api;
        async move {
            let json_patch = [("content-type", "application/json-patch+json")];
            let request = format!("PATCH {CMS}/a");
            api.ask_as(As::Admin, &request, &body, &json_patch)
                .await
                .code
        }
    };
    let copies = (0..40).map(|n| format!(r#"{{"op":"copy","from":"/data","path":"/data/x{n}"}}"#));
    assert_eq!(patch(copies.collect()).await, 413);
    let test = r#"{"op":"test","path":"/data/k","value":"v"}"#;
    assert_eq!(patch(vec![test.to_owned(); 10_001]).await, 413);
    let deep = format!("{}1{}", r#"{"data":"#.repeat(30_000), "}".repeat(30_000));
    let code = api.ask(&format!("PATCH {CMS}/a"), &deep).await.code;
    assert_eq!(code, 400, "refused before it is read as YAML");
}

#[tokio::test]
async fn yaml_that_grows_is_refused() {
    let api = Api::start().await;
    let mut bomb = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
    for level in 1..12 {
        let before = format!("*a{}", level - 1);
        bomb.push_str(&format!(
            "a{level}: &a{level} [{}]\n",
            [before.as_str(); 10].join(",")
        ));
    }
    let yaml = [("content-type", "application/yaml")];
    let answer = api
        .ask_as(As::Admin, &format!("POST {CMS}"), &bomb, &yaml)
        .await;
    assert_eq!(
        answer.code,
        400,
        "{}",
        answer.text.chars().take(300).collect::<String>()
    );
}

#[tokio::test]
async fn bad_requests() {
    let api = Api::start().await;
    api.check(&format!("POST {CMS}"), "{", "400").await;
    api.check(&format!("POST {CMS}"), "", "400").await;
    api.check(
        &format!("POST {CMS}/a"),
        r#"{"metadata":{"name":"a"}}"#,
        r#"405 reason="MethodNotAllowed""#,
    )
    .await;
    api.check(&format!("PUT {CMS}"), "{}", "405").await;
    api.check(
        "POST /api/v1/configmaps",
        r#"{"metadata":{"name":"a"}}"#,
        "405",
    )
    .await;
    api.check("GET /api/v1/configmaps/a", "", "404").await;
    api.check("GET /api/v1/namespaces/default/nodes/a", "", "404")
        .await;
    api.check("GET /api/v1/nothings", "", r#"404 reason="NotFound""#)
        .await;
    api.check(&format!("GET {CMS}/a/nothing"), "", "404").await;
    api.check(&format!("GET {CMS}/a/status/more"), "", "404")
        .await;
    api.check(&format!("GET {CMS}/%2e%2e"), "", "400").await;
    api.check(&format!("GET {CMS}?limit=x"), "", "400").await;
    let csv = [("content-type", "text/csv")];
    assert_eq!(
        api.ask_as(As::Admin, &format!("POST {CMS}"), "x", &csv)
            .await
            .code,
        415
    );
    let odd = api
        .ask_as(As::Admin, &format!("TRACE {CMS}"), "", &[])
        .await;
    assert_eq!(odd.code, 405);
}
