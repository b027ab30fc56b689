//! What a sidecar sees.

use tonic::Code;

use super::{
    Change::{Gone, Pod, Service},
    Server,
    client::Client,
};
use crate::compile::ResourceKind;

#[tokio::test]
async fn services_are_found_by_address_as_they_come_and_go() {
    let server = Server::start().await;
    server.publish(&[
        Service("shop/web:80", "10.96.0.1", "1"),
        Pod("shop/b", "b", "10.244.0.7"),
    ]);
    let mut client = Client::sidecar(&server, "shop", "a", "a").await;
    client
        .subscribe(ResourceKind::Service, &["10.96.0.1:80"])
        .await;
    client.check(&["Service +shop/web:80"]).await;
    client
        .send(ResourceKind::Service, |request| {
            request.subscribe = vec!["10.96.0.2:80".into(), "10.9.9.9:1".into()]
        })
        .await;
    client.check(&["Service -10.9.9.9:1 -10.96.0.2:80"]).await;
    // A Service that comes later.
    server.publish(&[Service("shop/late:80", "10.96.0.2", "1")]);
    client.check(&["Service +shop/late:80"]).await;
    // The address is another Service's now.
    server.publish(&[Gone(ResourceKind::Service, "shop/late:80")]);
    server.publish(&[Service("shop/heir:80", "10.96.0.2", "1")]);
    let mut seen = Vec::new();
    while !seen
        .iter()
        .any(|text: &String| text.contains("+shop/heir:80"))
    {
        seen.push(client.next().await);
    }
    while client.held.len() > 2 {
        client.next().await;
    }
    // Nobody asks for it any more: it is taken away, and its changes are no news.
    client
        .send(ResourceKind::Service, |request| {
            request.unsubscribe = vec!["10.96.0.1:80".into()];
        })
        .await;
    client.check(&["Service -shop/web:80"]).await;
    server.publish(&[
        Service("shop/web:80", "10.96.0.1", "2"),
        Service("shop/heir:80", "10.96.0.2", "2"),
    ]);
    client.check(&["Service +shop/heir:80"]).await;
}

#[tokio::test]
async fn a_meshed_pod_is_found_by_its_own_address() {
    let server = Server::start().await;
    server.publish(&[Pod("shop/b", "b", "10.244.0.7")]);
    let mut client = Client::sidecar(&server, "shop", "a", "a").await;
    client
        .subscribe(ResourceKind::Service, &["10.244.0.7:8080", "[fd00::1]:80"])
        .await;
    let response = client.apply().await;
    client.answer(&response, &[]).await;
    let body = response.resources[0].body.as_ref().expect("a body");
    let service: meshgate_api::push::Service =
        prost::Message::decode(&*body.value).expect("a Service");
    assert_eq!(response.resources[0].name, "pod/shop/b:8080");
    assert_eq!(
        service.endpoints[0].identity,
        "spiffe://cluster.local/ns/shop/sa/b"
    );
    assert_eq!(
        (service.endpoints[0].uid.as_str(), service.endpoints[0].port),
        ("uid-of-b", 8080)
    );
    // Another pod with the same address, seen before the first one's end.
    server.publish(&[Pod("shop/c", "c", "10.244.0.7")]);
    client
        .check(&["Service +pod/shop/c:8080", "Service -pod/shop/b:8080"])
        .await;
    server.publish(&[Gone(ResourceKind::Workload, "shop/b")]);
    server.publish(&[Gone(ResourceKind::Workload, "shop/c")]);
    client.check(&["Service -pod/shop/c:8080"]).await;
}

#[tokio::test]
async fn it_sees_its_own_workload_and_no_other() {
    let server = Server::start().await;
    server.publish(&[
        Pod("shop/a", "a", "10.244.0.1"),
        Pod("shop/b", "b", "10.244.0.2"),
    ]);
    let mut client = Client::sidecar(&server, "shop", "a", "a").await;
    client
        .subscribe(ResourceKind::Workload, &["shop/a", "shop/b"])
        .await;
    client.check(&["Workload +shop/a -shop/b"]).await;
    // A pod of that name, but not with that account.
    let mut other = Client::sidecar(&server, "shop", "a", "b").await;
    other.subscribe(ResourceKind::Workload, &["shop/a"]).await;
    other.check(&["Workload -shop/a"]).await;
}

#[tokio::test]
async fn certificates_everything_and_other_namespaces_are_not_for_it() {
    let server = Server::start().await;
    for (kind, name, code) in [
        (
            ResourceKind::Certificate,
            "shop/tls",
            Code::PermissionDenied,
        ),
        (ResourceKind::EdgeHost, "a.test", Code::PermissionDenied),
        (ResourceKind::Service, "*", Code::InvalidArgument),
    ] {
        let mut client = Client::sidecar(&server, "shop", "a", "a").await;
        client.subscribe(kind, &[name]).await;
        assert_eq!(
            client.receive().await.expect_err("refused").code(),
            code,
            "{kind:?}"
        );
    }
    let credential = super::credential(&server.authority, "shop", "a");
    let role = meshgate_api::push::node::Role::Sidecar;
    let mut client = Client::open(&server, credential, role, "other", "a").await;
    client.subscribe(ResourceKind::Workload, &["other/a"]).await;
    assert_eq!(
        client.receive().await.expect_err("refused").code(),
        Code::PermissionDenied
    );
}
