//! Which endpoint: all of them, the new ones at once, the gone ones never, the leaving ones last.

use std::sync::Arc;
use std::time::Duration;

use meshgate_proxy::{Policy, Services, Snapshot};
use meshgate_routing::upstream::Algorithm;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::kit::{
    Act, Origin, Proxy, endpoint, everything_to, ok, read_message, service, service_of, soon,
    status_of,
};

#[tokio::test]
async fn every_algorithm_reaches_every_endpoint() {
    let origins = [
        Origin::start(ok("")).await,
        Origin::start(ok("")).await,
        Origin::start(ok("")).await,
    ];
    for algorithm in [
        Algorithm::LeastRequest,
        Algorithm::PeakEwma,
        Algorithm::RoundRobin,
        Algorithm::Random,
        // Without a key.
        Algorithm::ConsistentHash,
    ] {
        let policy = Policy {
            algorithm,
            ..Policy::default()
        };
        let refs: Vec<&Origin> = origins.iter().collect();
        let proxy = Proxy::edge(service(&refs, policy));
        let before: Vec<usize> = origins.iter().map(|origin| origin.seen().len()).collect();
        for _ in 0..60 {
            assert_eq!(status_of(&proxy.get("/").await), 200);
        }
        for (origin, before) in origins.iter().zip(before) {
            assert!(origin.seen().len() > before, "{algorithm:?}");
        }
    }
}

/// What was slow once is not asked again while others are quick.
#[tokio::test]
async fn a_slow_endpoint_is_avoided_by_its_latency() {
    let late = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_owned();
    let slow = Origin::start(Act::SayLate(Duration::from_millis(500), late)).await;
    let quick = Origin::start(ok("")).await;
    let policy = Policy {
        algorithm: Algorithm::PeakEwma,
        ..Policy::default()
    };
    let proxy = Proxy::edge(service(&[&slow, &quick], policy));
    for _ in 0..40 {
        assert_eq!(status_of(&proxy.get("/").await), 200);
    }
    // Nothing is known of either at first.
    assert!(
        (1..=2).contains(&slow.seen().len()),
        "{}",
        slow.seen().len()
    );
}

/// 429 with Retry-After weighs, and is no failure (RFC 9110 §10.2.3); without it, it says nothing of later requests.
#[tokio::test]
async fn an_endpoint_that_asks_for_a_pause_gets_one() {
    let check = async |algorithm, retry_after: &str, asked: std::ops::RangeInclusive<usize>| {
        let busy = format!("HTTP/1.1 429 X\r\nContent-Length: 0\r\n{retry_after}\r\n");
        let (busy, free) = (
            Origin::start(Act::Say(busy)).await,
            Origin::start(ok("")).await,
        );
        let policy = Policy {
            algorithm,
            ..Policy::default()
        };
        let proxy = Proxy::edge(service(&[&busy, &free], policy));
        let mut answers = Vec::new();
        for _ in 0..60 {
            answers.push(status_of(&proxy.get("/").await));
        }
        let count = busy.seen().len();
        assert!(asked.contains(&count), "{retry_after:?}: {count}");
        assert_eq!(
            answers.iter().filter(|status| **status == 429).count(),
            count
        );
    };
    use Algorithm::{LeastRequest, PeakEwma};
    for retry_after in [
        "Retry-After: 30\r\n",
        "Retry-After: Fri, 31 Dec 2100 23:59:59 GMT\r\n",
    ] {
        check(LeastRequest, retry_after, 1..=1).await;
        check(PeakEwma, retry_after, 1..=1).await;
    }
    // It answers as quickly as the other, and gains nothing by that.
    check(PeakEwma, "", 1..=2).await;
    for nothing in [
        "",
        "Retry-After: soon\r\n",
        "Retry-After: 0\r\n",
        "Retry-After: Fri, 31 Dec 1999 23:59:59 GMT\r\n",
    ] {
        check(LeastRequest, nothing, 8..=52).await;
    }
}

#[tokio::test]
async fn a_change_of_endpoints_holds_from_the_next_request_on() {
    let (old, new) = (
        Origin::start(ok("old")).await,
        Origin::start(ok("new")).await,
    );
    let proxy = Proxy::edge(service_of(
        vec![endpoint(old.address, "pod-old")],
        Policy::default(),
        None,
    ));
    let mut client = TcpStream::connect(proxy.address()).await.unwrap();
    let mut buffer = Vec::new();
    let mut ask = async |expected: &str| {
        client
            .write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
            .await
            .unwrap();
        let answer = soon(read_message(&mut client, &mut buffer)).await.unwrap();
        assert!(answer.ends_with(expected), "{answer}");
    };
    ask("old").await;
    let previous = proxy.engine.snapshot();
    let previous = previous.services.named("shop/web:80").unwrap();
    let changed = service_of(
        vec![endpoint(new.address, "pod-new")],
        Policy::default(),
        Some(previous),
    );
    proxy.engine.swap(everything_to(changed, vec![]));
    ask("new").await;
}

#[tokio::test]
async fn live_state_survives_a_change_of_configuration() {
    let origin = Origin::start(ok("")).await;
    let proxy = Proxy::edge(service(&[&origin], Policy::default()));
    for _ in 0..5 {
        let snapshot = proxy.engine.snapshot();
        let previous = snapshot.services.named("shop/web:80").unwrap();
        let same = service_of(
            vec![endpoint(origin.address, "pod-0")],
            Policy::default(),
            Some(previous),
        );
        proxy.engine.swap(everything_to(same, vec![]));
        assert_eq!(status_of(&proxy.get("/").await), 200);
    }
    assert_eq!(origin.connections(), 1, "the connection was kept");
    // The same address with another pod behind it: nothing may be kept.
    let snapshot = proxy.engine.snapshot();
    let previous = snapshot.services.named("shop/web:80").unwrap();
    let other = service_of(
        vec![endpoint(origin.address, "pod-1")],
        Policy::default(),
        Some(previous),
    );
    proxy.engine.swap(everything_to(other, vec![]));
    assert_eq!(status_of(&proxy.get("/").await), 200);
    assert_eq!(origin.connections(), 2);
}

#[tokio::test]
async fn a_terminating_endpoint_is_used_only_when_nothing_else_is_left() {
    let (leaving, ready) = (Origin::start(ok("")).await, Origin::start(ok("")).await);
    let mut first = endpoint(leaving.address, "leaving");
    first.terminating = true;
    let both = vec![first.clone(), endpoint(ready.address, "ready")];
    let proxy = Proxy::edge(service_of(both, Policy::default(), None));
    for _ in 0..20 {
        proxy.get("/").await;
    }
    assert_eq!((leaving.seen().len(), ready.seen().len()), (0, 20));
    proxy.engine.swap(everything_to(
        service_of(vec![first], Policy::default(), None),
        vec![],
    ));
    assert_eq!(status_of(&proxy.get("/").await), 200);
    assert_eq!(leaving.seen().len(), 1);
}

#[tokio::test]
async fn a_rule_without_its_service_says_so() {
    let origin = Origin::start(ok("")).await;
    let proxy = Proxy::edge(service(&[&origin], Policy::default()));
    let snapshot = everything_to(service(&[&origin], Policy::default()), vec![]);
    proxy.engine.swap(Snapshot {
        services: Services::new(Vec::<Arc<meshgate_proxy::Service>>::new(), false),
        ..snapshot
    });
    let answer = proxy.get("/").await;
    assert_eq!(status_of(&answer), 503);
    assert!(
        answer.contains("misconfigured; service shop/web:80 is not known"),
        "{answer}"
    );
}
