//! Addresses of Services.

use std::collections::HashSet;

use crate::harness::Api;

const SERVICES: &str = "/api/v1/namespaces/default/services";

#[tokio::test]
async fn addresses_are_unique_and_given_back() {
    let api = Api::start().await;
    api.check(
        "GET /api/v1/namespaces/default/services/kubernetes",
        "",
        r#"200 spec.clusterIP="10.96.0.1""#,
    )
    .await;
    let taken =
        r#"{"metadata":{"name":"a"},"spec":{"clusterIP":"10.96.0.1","ports":[{"port":80}]}}"#;
    api.check(
        &format!("POST {SERVICES}"),
        taken,
        r#"422 details.causes.0.field="spec.clusterIPs""#,
    )
    .await;
    let services = (0..20).map(|n| {
        let body =
            format!(r#"{{"metadata":{{"name":"s{n}"}},"spec":{{"ports":[{{"port":80}}]}}}}"#);
        let api = &api;
        async move {
            api.create(SERVICES, &body).await["spec"]["clusterIP"]
                .as_str()
                .expect("an address")
                .to_owned()
        }
    });
    let addresses: HashSet<String> = futures::future::join_all(services)
        .await
        .into_iter()
        .collect();
    assert_eq!(addresses.len(), 20);
    let fixed =
        r#"{"metadata":{"name":"f"},"spec":{"clusterIP":"10.96.0.200","ports":[{"port":80}]}}"#;
    api.create(SERVICES, fixed).await;
    api.check(
        &format!("POST {SERVICES}"),
        &fixed.replace("\"f\"", "\"g\""),
        "422",
    )
    .await;
    api.check(&format!("DELETE {SERVICES}/f"), "", r#"200 kind="Service""#)
        .await;
    api.create(SERVICES, &fixed.replace("\"f\"", "\"g\"")).await;
    let api = api.restart().await;
    api.check(
        &format!("POST {SERVICES}"),
        &fixed.replace("\"f\"", "\"h\""),
        "422",
    )
    .await;
}

#[tokio::test]
async fn types_of_services() {
    let api = Api::start().await;
    let make =
        |name: &str, spec: &str| format!(r#"{{"metadata":{{"name":"{name}"}},"spec":{spec}}}"#);
    let headless = make("h", r#"{"clusterIP":"None","ports":[{"port":80}]}"#);
    api.check(
        &format!("POST {SERVICES}"),
        &headless,
        r#"201 spec.clusterIPs=["None"]"#,
    )
    .await;
    let external = make("e", r#"{"type":"ExternalName","externalName":"a.test"}"#);
    api.check(
        &format!("POST {SERVICES}"),
        &external,
        "201 spec.clusterIP=-",
    )
    .await;
    let node_port = make("n", r#"{"type":"NodePort","ports":[{"port":80}]}"#);
    let made = api
        .check(&format!("POST {SERVICES}"), &node_port, "201")
        .await;
    let port = made["spec"]["ports"][0]["nodePort"]
        .as_u64()
        .expect("a node port");
    assert!((30000..=32767).contains(&port), "{port}");
    // An update that leaves address and port out keeps them.
    let expected = format!(
        "200 spec.clusterIP={} spec.ports.0.nodePort={port}",
        made["spec"]["clusterIP"]
    );
    api.check(&format!("PUT {SERVICES}/n"), &node_port, &expected)
        .await;
    let dry = make("d", r#"{"ports":[{"port":80}]}"#);
    let dry = api
        .check(&format!("POST {SERVICES}?dryRun=All"), &dry, "201")
        .await;
    assert!(dry["spec"]["clusterIP"].is_string());
}
