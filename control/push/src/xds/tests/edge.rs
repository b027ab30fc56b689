//! What the edge sees.

use std::collections::BTreeSet;

use meshgate_api::push::node::Role;
use tonic::Code;

use super::{
    Change::{Certificate, Gone, Host, Service},
    Server, authority,
    client::{Client, channel, show},
    credential,
};
use crate::{
    compile::{Key, ResourceKind},
    xds::replicas::Progress,
};

const ALL: [ResourceKind; 3] = [
    ResourceKind::Certificate,
    ResourceKind::Service,
    ResourceKind::EdgeHost,
];

async fn subscribed(server: &Server) -> Client {
    let mut client = Client::edge(server).await;
    for kind in ALL {
        client.subscribe(kind, &["*"]).await;
    }
    client
}

#[tokio::test]
async fn it_gets_all_it_needs_then_what_changes() {
    let server = Server::start().await;
    server.publish(&[
        Service("shop/web:80", "10.96.0.1", "1"),
        Service("shop/db:5432", "10.96.0.2", "1"),
        Host("a.test", &["shop/web:80"]),
        Certificate("shop/tls", "1"),
    ]);
    let mut client = Client::edge(&server).await;
    client.subscribe(ResourceKind::EdgeHost, &["*"]).await;
    client.check(&["EdgeHost +a.test"]).await;
    client.subscribe(ResourceKind::Certificate, &["*"]).await;
    client.check(&["Certificate +shop/tls"]).await;
    // Only what a host names.
    client.subscribe(ResourceKind::Service, &["*"]).await;
    client.check(&["Service +shop/web:80"]).await;
    server.publish(&[
        Service("shop/web:80", "10.96.0.1", "2"),
        Service("shop/db:5432", "10.96.0.2", "2"),
    ]);
    client.check(&["Service +shop/web:80"]).await;
    // What a host needs comes before it; what it no longer needs goes after it.
    server.publish(&[Host("a.test", &["shop/db:5432"])]);
    client
        .check(&[
            "Service +shop/db:5432",
            "EdgeHost +a.test",
            "Service -shop/web:80",
        ])
        .await;
    server.publish(&[
        Gone(ResourceKind::EdgeHost, "a.test"),
        Gone(ResourceKind::Certificate, "shop/tls"),
    ]);
    client
        .check(&[
            "Certificate -shop/tls",
            "Service -shop/db:5432",
            "EdgeHost -a.test",
        ])
        .await;
}

#[tokio::test]
async fn the_first_subscription_is_answered_even_when_there_is_nothing() {
    let server = Server::start().await;
    let mut client = Client::edge(&server).await;
    client.subscribe(ResourceKind::Certificate, &["*"]).await;
    client.check(&["Certificate"]).await;
}

#[tokio::test]
async fn nothing_is_said_before_everything_is_listed() {
    let server = Server::start().await;
    server.ready.send_replace(false);
    let mut client = Client::edge(&server).await;
    client.subscribe(ResourceKind::EdgeHost, &["*"]).await;
    server.publish(&[Host("a.test", &[])]);
    server.ready.send_replace(true);
    client.check(&["EdgeHost +a.test"]).await;
}

#[tokio::test]
async fn a_proxy_that_resumes_gets_what_differs() {
    let server = Server::start().await;
    server.publish(&[
        Host("a.test", &[]),
        Host("b.test", &[]),
        Host("c.test", &[]),
    ]);
    let mut client = Client::edge(&server).await;
    client.subscribe(ResourceKind::EdgeHost, &["*"]).await;
    client.check(&["EdgeHost +a.test +b.test +c.test"]).await;
    let held = std::mem::take(&mut client.held);
    drop(client);
    server.publish(&[
        Host("a.test", &["shop/web:80"]),
        Gone(ResourceKind::EdgeHost, "b.test"),
        Host("d.test", &[]),
    ]);
    let mut client = Client::edge(&server).await;
    client.held = held;
    client.subscribe(ResourceKind::EdgeHost, &["*"]).await;
    client
        .check(&["EdgeHost +a.test +d.test", "EdgeHost -b.test"])
        .await;
    // Asked for again without saying what it holds: it wants everything.
    client.held.clear();
    client.subscribe(ResourceKind::EdgeHost, &["*"]).await;
    client.check(&["EdgeHost +a.test +c.test +d.test"]).await;
}

#[tokio::test]
async fn a_proxy_that_holds_very_much_resumes() {
    let server = Server::start().await;
    server.publish(&[Host("a.test", &[])]);
    let mut client = Client::edge(&server).await;
    for index in 0..60_000 {
        let name = format!("h{index}.{}.test", "x".repeat(40));
        let version = format!("{index:016}");
        client.held.insert((ResourceKind::EdgeHost, name), version);
    }
    client.subscribe(ResourceKind::EdgeHost, &["*"]).await;
    client.check(&["EdgeHost +a.test"]).await;
    client.apply().await;
    assert_eq!(client.held.len(), 1);
}

#[tokio::test]
async fn acknowledgements_and_refusals_are_counted() {
    let server = Server::start().await;
    server.publish(&[Host("a.test", &[])]);
    let keys = BTreeSet::from([Key::new(ResourceKind::EdgeHost, "a.test")]);
    let progress = |generation| {
        let (keys, table) = (keys.clone(), server.table.clone());
        move |replicas: &crate::xds::replicas::Replicas| {
            replicas.progress_of(&keys, generation, &table)
        }
    };
    let mut one = subscribed(&server).await;
    let mut two = subscribed(&server).await;
    one.check(&["Certificate", "Service", "EdgeHost +a.test"])
        .await;
    two.check(&["Certificate", "Service", "EdgeHost +a.test"])
        .await;
    let of = progress(server.table.read().generation());
    server
        .until("both enforce it", |replicas| of(replicas).enforced == 2)
        .await;

    let generation = server.publish(&[Host("a.test", &["shop/web:80"])]);
    let of = progress(generation);
    one.check(&["EdgeHost +a.test"]).await;
    server
        .until("one enforces it", |replicas| of(replicas).enforced == 1)
        .await;
    let waiting = Progress {
        enforced: 1,
        total: 2,
        refused: Vec::new(),
    };
    assert_eq!(of(&server.replicas), waiting);
    let response = two.apply().await;
    two.answer(&response, &[("a.test", "bad rule")]).await;
    server
        .until("one refuses it", |replicas| {
            !of(replicas).refused.is_empty()
        })
        .await;
    let refused = vec![("meshgate-system/edge-1".to_owned(), "bad rule".to_owned())];
    assert_eq!(
        of(&server.replicas),
        Progress {
            enforced: 1,
            total: 2,
            refused
        }
    );

    // A better version, taken by both.
    let of = progress(server.publish(&[Host("a.test", &[])]));
    one.check(&["EdgeHost +a.test"]).await;
    two.check(&["EdgeHost +a.test"]).await;
    server
        .until("both enforce it", |replicas| of(replicas).enforced == 2)
        .await;
    // What changes nothing for them needs no answer.
    let of = progress(server.publish(&[Service("shop/other:80", "10.96.0.9", "1")]));
    server
        .until("both are past it", |replicas| of(replicas).enforced == 2)
        .await;
    drop(two);
    server
        .until("one is left", |replicas| of(replicas).total == 1)
        .await;
}

#[tokio::test]
async fn a_refusal_is_about_the_version_that_it_answers() {
    let server = Server::start().await;
    let keys = BTreeSet::from([Key::new(ResourceKind::EdgeHost, "a.test")]);
    server.publish(&[Host("a.test", &["shop/bad:80"])]);
    let mut client = Client::edge(&server).await;
    client.subscribe(ResourceKind::EdgeHost, &["*"]).await;
    let bad = client.apply().await;
    // The mended version is on its way before the refusal.
    let generation = server.publish(&[Host("a.test", &[])]);
    let mended = client.apply().await;
    client.answer(&bad, &[("a.test", "bad rule")]).await;
    client.answer(&mended, &[]).await;
    let of = |replicas: &crate::xds::replicas::Replicas| {
        replicas.progress_of(&keys, generation, &server.table)
    };
    server
        .until("it enforces the mended one", |replicas| {
            of(replicas).enforced == 1
        })
        .await;

    // Asked for anew, a refused version is sent and refused again.
    let generation = server.publish(&[Host("a.test", &["shop/bad:80"])]);
    let bad = client.apply().await;
    client.answer(&bad, &[("a.test", "bad rule")]).await;
    drop(client);
    let mut client = Client::edge(&server).await;
    let held = (ResourceKind::EdgeHost, "a.test".to_owned());
    client.held.insert(held, String::new());
    client.subscribe(ResourceKind::EdgeHost, &["*"]).await;
    let bad = client.apply().await;
    assert_eq!(show(&bad), "EdgeHost +a.test");
    client.answer(&bad, &[("a.test", "bad rule")]).await;
    let refused = |replicas: &crate::xds::replicas::Replicas| {
        replicas.progress_of(&keys, generation, &server.table)
    };
    server
        .until("it refuses", |replicas| {
            !refused(replicas).refused.is_empty()
        })
        .await;
}

#[tokio::test]
async fn a_slow_reader_gets_the_latest_and_holds_nobody_up() {
    let server = Server::start().await;
    let large = "x".repeat(64 * 1024);
    server.publish(&[Certificate("shop/tls", &large)]);
    let mut slow = Client::edge(&server).await;
    slow.subscribe(ResourceKind::Certificate, &["*"]).await;
    let mut quick = Client::edge(&server).await;
    quick.subscribe(ResourceKind::Certificate, &["*"]).await;
    quick.check(&["Certificate +shop/tls"]).await;
    // Far more than buffers on the way take; publishing never waits, and the quick one sees each.
    for round in 0..200 {
        server.publish(&[Certificate("shop/tls", &format!("{large}{round}"))]);
        quick.check(&["Certificate +shop/tls"]).await;
    }
    let newest = quick.held.clone();
    let mut responses = 0;
    while slow.held != newest {
        slow.check(&["Certificate +shop/tls"]).await;
        responses += 1;
    }
    assert!(
        responses < 50,
        "{responses} of 200 versions reached the slow reader"
    );
}

#[tokio::test]
async fn large_configurations_come_in_pieces() {
    let server = Server::start().await;
    let large = "x".repeat(512 * 1024);
    let names: Vec<String> = (0..10).map(|index| format!("shop/tls-{index}")).collect();
    let certificates: Vec<_> = names.iter().map(|name| Certificate(name, &large)).collect();
    server.publish(&certificates);
    let mut client = Client::edge(&server).await;
    client.subscribe(ResourceKind::Certificate, &["*"]).await;
    let mut pieces = Vec::new();
    loop {
        let response = client.apply().await;
        client.answer(&response, &[]).await;
        pieces.push(response.resources.len());
        if !response.more {
            break;
        }
    }
    assert_eq!(pieces.iter().sum::<usize>(), 10);
    assert!(pieces.len() > 2, "{pieces:?}");
}

#[tokio::test]
async fn only_the_edge_may_be_the_edge() {
    let server = Server::start().await;
    for (namespace, account) in [("shop", "edge"), ("meshgate-system", "default")] {
        let credential = credential(&server.authority, namespace, account);
        let mut client = Client::open(&server, credential, Role::Edge, namespace, "edge-1").await;
        client.subscribe(ResourceKind::EdgeHost, &["*"]).await;
        assert_eq!(
            client.receive().await.expect_err("refused").code(),
            Code::PermissionDenied
        );
    }
}

#[tokio::test]
async fn without_a_certificate_of_this_mesh_there_is_no_stream() {
    let server = Server::start().await;
    let anonymous = channel(&server, None)
        .await
        .expect("connected: Certify comes without");
    let requests = tokio_stream::pending();
    let opened = meshgate_api::push::push_client::PushClient::new(anonymous)
        .delta(requests)
        .await;
    assert_eq!(opened.expect_err("refused").code(), Code::Unauthenticated);
    // TLS 1.3 clients learn of a refused certificate with their first read: the connection or the call fails.
    let foreign = credential(&authority(), "meshgate-system", "edge");
    if let Ok(channel) = channel(&server, Some(foreign)).await {
        let requests = tokio_stream::pending();
        let opened = meshgate_api::push::push_client::PushClient::new(channel)
            .delta(requests)
            .await;
        assert!(opened.is_err());
    }
}

#[tokio::test]
async fn the_log_forgets_what_is_gone_and_streams_still_converge() {
    let server = Server::start().await;
    server.publish(&[Host("a.test", &[])]);
    let mut client = Client::edge(&server).await;
    client.subscribe(ResourceKind::EdgeHost, &["*"]).await;
    client.check(&["EdgeHost +a.test"]).await;
    let names: Vec<String> = (0..5000).map(|index| format!("h{index}.test")).collect();
    let added: Vec<_> = names.iter().map(|name| Host(name, &[])).collect();
    server.publish(&added);
    let gone: Vec<_> = names
        .iter()
        .map(|name| Gone(ResourceKind::EdgeHost, name))
        .collect();
    server.publish(&gone);
    server.publish(&[Host("b.test", &[])]);
    while !client
        .held
        .keys()
        .map(|(_, name)| name.as_str())
        .eq(["a.test", "b.test"])
    {
        let response = client.apply().await;
        client.answer(&response, &[]).await;
        let _ = show(&response);
    }
}
