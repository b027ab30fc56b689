//! Rate limits, and limits of connections and requests.

use std::sync::Arc;
use std::time::Duration;

use meshgate_proxy::clock::now;
use meshgate_proxy::{
    EngineOptions, Limits, ListenerLimits, Policy, Protocol, Service, ServiceSpec,
};
use meshgate_routing::permit::lease::Grant;
use meshgate_routing::permit::limit::{LimitMatch, OnFailure, Scope};
use meshgate_routing::permit::owner::{QuotaOwner, QuotaTerms};
use meshgate_routing::permit::{Limit, Rate};
use meshgate_routing::upstream::pick::Algorithm;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::kit::{
    Act, Origin, Proxy, endpoint, everything_to, field, get, ok, raw, service, soon, status_of,
};
use crate::ways::Http2Origin;

fn limit(requests: u64, per: Duration, scope: Scope) -> Limit {
    Limit {
        id: "shop/limits/all".into(),
        name: "all".into(),
        matches: LimitMatch::default(),
        key: vec![],
        rate: Rate::new(requests, per, 0),
        scope,
        shadow: false,
    }
}

#[tokio::test]
async fn a_local_limit_refuses_with_its_fields() {
    let origin = Origin::start(ok("")).await;
    let proxy = Proxy::edge(service(&[&origin], Policy::default()));
    let open = || {
        proxy
            .engine
            .limits()
            .open(limit(2, Duration::from_secs(60), Scope::Local))
    };
    let web = || service(&[&origin], Policy::default());
    proxy.engine.swap(everything_to(web(), vec![open()]));
    for _ in 0..2 {
        assert_eq!(status_of(&proxy.get("/").await), 200);
    }
    let refused = proxy.get("/").await;
    assert_eq!(status_of(&refused), 429, "{refused}");
    assert_eq!(
        field(&refused, "meshgate-reason"),
        Some("rate-limited; all")
    );
    assert_eq!(
        field(&refused, "ratelimit-policy"),
        Some("\"all\";q=2;w=60")
    );
    let seconds: u64 = field(&refused, "retry-after").unwrap().parse().unwrap();
    assert!((50..=61).contains(&seconds));
    // A new snapshot with the same limit does not forget.
    proxy.engine.swap(everything_to(web(), vec![open()]));
    assert_eq!(status_of(&proxy.get("/").await), 429);
    assert_eq!(origin.seen().len(), 2);
}

#[tokio::test]
async fn a_global_limit_is_exact_over_two_replicas() {
    let origin = Origin::start(ok("")).await;
    let per = Duration::from_secs(60);
    let scope = Scope::Global {
        replicas: 2,
        on_failure: OnFailure::LocalShare,
    };
    let owner = Arc::new(tokio::sync::Mutex::new(QuotaOwner::new(now())));
    let terms = QuotaTerms {
        rate: Rate::new(10, per, 0),
        replicas: 2,
    };
    owner
        .lock()
        .await
        .set_limit("shop/limits/all", terms, now());
    let mut replicas = Vec::new();
    for name in ["edge-0", "edge-1"] {
        let proxy = Proxy::edge(service(&[&origin], Policy::default()));
        let open = proxy.engine.limits().open(limit(10, per, scope));
        let web = service(&[&origin], Policy::default());
        proxy.engine.swap(everything_to(web, vec![open]));
        let (quota, owner) = (proxy.engine.limits().quota(), owner.clone());
        quota.connected(now());
        let link = tokio::spawn(async move {
            loop {
                quota.wanted().await;
                for demand in quota.demands(now()) {
                    let grants = owner.lock().await.demand(now(), &name.into(), &demand);
                    let mine: Vec<Grant> = grants
                        .into_iter()
                        .filter(|(to, _)| **to == *name)
                        .map(|(_, grant)| grant)
                        .collect();
                    quota.granted(now(), &mine);
                }
            }
        });
        replicas.push((proxy, link));
    }
    let mut admitted = 0;
    for round in 0..40 {
        let (proxy, _) = &replicas[round % 2];
        admitted += usize::from(status_of(&proxy.get("/").await) == 200);
    }
    for (_, link) in &replicas {
        link.abort();
    }
    assert_eq!(admitted, 10);
}

#[tokio::test]
async fn without_an_owner_a_replica_serves_its_share() {
    let origin = Origin::start(ok("")).await;
    for (on_failure, expected) in [
        (OnFailure::LocalShare, 5),
        (OnFailure::Open, 20),
        (OnFailure::Closed, 0),
    ] {
        let proxy = Proxy::edge(service(&[&origin], Policy::default()));
        let scope = Scope::Global {
            replicas: 2,
            on_failure,
        };
        let open = proxy
            .engine
            .limits()
            .open(limit(10, Duration::from_secs(60), scope));
        let web = service(&[&origin], Policy::default());
        proxy.engine.swap(everything_to(web, vec![open]));
        let mut admitted = 0;
        for _ in 0..20 {
            admitted += usize::from(status_of(&proxy.get("/").await) == 200);
        }
        assert_eq!(admitted, expected, "{on_failure:?}");
    }
}

#[tokio::test]
async fn requests_wait_in_a_bounded_line() {
    let origin = Origin::start(Act::Hang).await;
    let policy = Policy {
        limits: Limits {
            connections: 10,
            requests: 1,
            pending: 1,
            pending_timeout: Duration::from_millis(50),
        },
        ..Policy::default()
    };
    let proxy = Proxy::edge(service(&[&origin], policy));
    let mut first = TcpStream::connect(proxy.address()).await.unwrap();
    first.write_all(get("/").as_bytes()).await.unwrap();
    soon(async {
        while origin.seen().is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let refused = proxy.get("/").await;
    assert_eq!(status_of(&refused), 503, "{refused}");
    let reason = field(&refused, "meshgate-reason").unwrap();
    assert!(reason.starts_with("overload; requests"), "{reason}");
}

#[tokio::test]
async fn one_client_cannot_take_all_connections() {
    let origin = Origin::start(ok("")).await;
    let limits = ListenerLimits {
        connections_per_client: 2,
        ..ListenerLimits::default()
    };
    let web = service(&[&origin], Policy::default());
    let proxy = Proxy::edge_with(web, EngineOptions::default(), limits);
    let first = TcpStream::connect(proxy.address()).await.unwrap();
    let _second = TcpStream::connect(proxy.address()).await.unwrap();
    assert_eq!(raw(proxy.address(), &get("/")).await, "");
    drop(first);
    soon(async {
        while status_of(&raw(proxy.address(), &get("/")).await) != 200 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn who_waits_for_a_connection_gets_the_next_that_is_free() {
    let origin = Origin::start(ok("x")).await;
    let policy = Policy {
        limits: Limits {
            connections: 1,
            requests: 100,
            pending: 100,
            pending_timeout: Duration::from_secs(10),
        },
        ..Policy::default()
    };
    let proxy = Arc::new(Proxy::edge(service(&[&origin], policy)));
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let proxy = proxy.clone();
        clients.spawn(async move { status_of(&proxy.get("/").await) });
    }
    while let Some(status) = soon(clients.join_next()).await {
        assert_eq!(status.unwrap(), 200);
    }
    assert_eq!(origin.connections(), 1);
}

/// What is kept for a next request must not stand in the way of one.
#[tokio::test]
async fn connections_that_nobody_uses_make_room() {
    let policy = || Policy {
        limits: Limits {
            connections: 1,
            pending_timeout: Duration::from_secs(10),
            ..Policy::default().limits
        },
        algorithm: Algorithm::RoundRobin,
        ..Policy::default()
    };
    let ask = async |proxy: &Proxy| {
        for _ in 0..6 {
            let answer = proxy.get("/").await;
            assert_eq!(status_of(&answer), 200, "{answer}");
        }
    };
    let origins = [Origin::start(ok("")).await, Origin::start(ok("")).await];
    ask(&Proxy::edge(service(&[&origins[0], &origins[1]], policy()))).await;
    assert!(origins.iter().all(|origin| origin.seen().len() == 3));
    let origins = [Http2Origin::start().await, Http2Origin::start().await];
    let spec = ServiceSpec {
        name: "shop/web:80".into(),
        protocol: Protocol::Http2,
        addresses: vec![],
        endpoints: origins
            .iter()
            .map(|origin| endpoint(origin.address, "pod"))
            .collect(),
        policy: policy(),
    };
    ask(&Proxy::edge(Service::new(spec, None))).await;
    assert!(origins.iter().all(|origin| origin.seen().len() == 3));
}
