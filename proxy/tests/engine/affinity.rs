//! Consistent hashing: the same key meets the same endpoint.

use std::collections::HashSet;
use std::time::Duration;

use meshgate_proxy::{EngineOptions, HashCookie, HashOn, ListenerLimits, Policy};
use meshgate_routing::upstream::{Algorithm, RetryOn};

use crate::kit::{
    Origin, Proxy, endpoint, everything_to, field, ok, service, service_of, status, status_of,
};

fn by(hash_on: HashOn) -> Policy {
    Policy {
        algorithm: Algorithm::ConsistentHash,
        hash_on: Some(hash_on),
        ..Policy::default()
    }
}

async fn origins(count: usize) -> Vec<Origin> {
    let mut origins = Vec::new();
    for index in 0..count {
        origins.push(Origin::start(ok(&index.to_string())).await);
    }
    origins
}

fn edge(origins: &[Origin], policy: Policy) -> Proxy {
    let refs: Vec<&Origin> = origins.iter().collect();
    Proxy::edge(service(&refs, policy))
}

/// Which origin answered a request with this target and these lines.
async fn met(proxy: &Proxy, target: &str, lines: &str) -> (usize, String) {
    let request =
        format!("GET {target} HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n{lines}\r\n");
    let answer = proxy.raw(&request).await;
    assert_eq!(status_of(&answer), 200, "{answer}");
    let origin = answer.lines().last().and_then(|body| body.parse().ok());
    (origin.unwrap_or_else(|| panic!("{answer}")), answer)
}

#[tokio::test]
async fn the_same_key_meets_the_same_endpoint() {
    let origins = origins(4).await;
    let cookie = |ttl| {
        HashOn::Cookie(HashCookie {
            name: "sid".into(),
            ttl,
        })
    };
    type Asked = fn(usize) -> (String, String);
    let cases: [(HashOn, Asked); 5] = [
        (HashOn::Header("x-user".into()), |key| {
            ("/".into(), format!("X-User: user-{key}\r\n"))
        }),
        (HashOn::Query("id".into()), |key| {
            (format!("/?a=1&id={key}-x&id=7"), String::new())
        }),
        (cookie(None), |key| {
            ("/".into(), format!("Cookie: a=1; sid=s{key}; sidx=9\r\n"))
        }),
        // In several lines, as HTTP/2 may have them; the first value counts.
        (cookie(Some(Duration::from_secs(60))), |key| {
            (
                "/".into(),
                format!("Cookie: xsid=1\r\nCookie:  sid=t{key};sid=9\r\n"),
            )
        }),
        (cookie(Some(Duration::ZERO)), |key| {
            ("/".into(), format!("Cookie: sid={key}\r\n"))
        }),
    ];
    for (hash_on, asked) in cases {
        let what = format!("{hash_on:?}");
        let proxy = edge(&origins, by(hash_on));
        let mut all = HashSet::new();
        for key in 0..40 {
            let (target, lines) = asked(key);
            let (first, answer) = met(&proxy, &target, &lines).await;
            assert_eq!(field(&answer, "set-cookie"), None, "{what}");
            for _ in 0..3 {
                assert_eq!(met(&proxy, &target, &lines).await.0, first, "{what}");
            }
            all.insert(first);
        }
        assert_eq!(all.len(), origins.len(), "{what}");
    }
}

#[tokio::test]
async fn one_address_meets_one_endpoint() {
    let origins = origins(4).await;
    let refs: Vec<&Origin> = origins.iter().collect();
    let options = EngineOptions {
        trusted_peers: vec!["127.0.0.0/8".parse().unwrap()],
        ..EngineOptions::default()
    };
    let service = service(&refs, by(HashOn::ClientAddress));
    let proxy = Proxy::edge_with(service, options, ListenerLimits::default());
    let mut all = HashSet::new();
    for client in 0..40 {
        let lines = format!("X-Forwarded-For: 203.0.113.{client}\r\n");
        let first = met(&proxy, "/", &lines).await.0;
        for _ in 0..3 {
            assert_eq!(met(&proxy, "/", &lines).await.0, first);
        }
        all.insert(first);
    }
    assert_eq!(all.len(), origins.len());
}

#[tokio::test]
async fn without_a_key_load_decides() {
    let origins = origins(3).await;
    for hash_on in [HashOn::Header("x-user".into()), HashOn::Query("id".into())] {
        let proxy = edge(&origins, by(hash_on));
        let mut all = HashSet::new();
        for _ in 0..60 {
            // What is empty is no key either.
            all.insert(met(&proxy, "/?id=&id=7", "X-User:\r\n").await.0);
        }
        assert_eq!(all.len(), origins.len());
    }
}

#[tokio::test]
async fn a_client_without_the_cookie_is_given_one() {
    let origins = origins(4).await;
    for (ttl, attributes) in [
        (
            Duration::from_secs(60),
            "; Path=/; HttpOnly; SameSite=Lax; Max-Age=60",
        ),
        (Duration::ZERO, "; Path=/; HttpOnly; SameSite=Lax"),
    ] {
        let cookie = HashCookie {
            name: "sid".into(),
            ttl: Some(ttl),
        };
        let proxy = edge(&origins, by(HashOn::Cookie(cookie)));
        let mut all = HashSet::new();
        for _ in 0..40 {
            let (first, answer) = met(&proxy, "/", "Cookie: other=1\r\n").await;
            let given = field(&answer, "set-cookie").unwrap();
            let pair = given
                .strip_suffix(attributes)
                .unwrap_or_else(|| panic!("{given}"));
            let lines = format!("Cookie: other=1; {pair}\r\n");
            let (again, answer) = met(&proxy, "/", &lines).await;
            assert_eq!((again, field(&answer, "set-cookie")), (first, None));
            all.insert(first);
        }
        assert_eq!(all.len(), origins.len());
    }
}

#[tokio::test]
async fn only_keys_of_an_endpoint_that_left_move() {
    let origins = origins(4).await;
    let policy = by(HashOn::Header("x-user".into()));
    let proxy = edge(&origins, policy.clone());
    let lines = |key: usize| format!("X-User: {key}\r\n");
    let mut before = Vec::new();
    for key in 0..40 {
        before.push(met(&proxy, "/", &lines(key)).await.0);
    }
    let left = before[0];
    let stay = origins
        .iter()
        .enumerate()
        .filter(|(index, _)| *index != left);
    let stay = stay.map(|(index, origin)| endpoint(origin.address, &format!("pod-{index}")));
    let snapshot = proxy.engine.snapshot();
    let previous = snapshot.services.named("shop/web:80").unwrap();
    let changed = service_of(stay.collect(), policy, Some(previous));
    proxy.engine.swap(everything_to(changed, vec![]));
    for (key, old) in before.into_iter().enumerate() {
        let new = met(&proxy, "/", &lines(key)).await.0;
        assert!(
            if old == left { new != left } else { new == old },
            "{key}: {old} to {new}"
        );
    }
}

/// The next on the ring, always the same one.
#[tokio::test]
async fn an_attempt_more_goes_to_the_next_on_the_ring() {
    let origins = origins(4).await;
    let mut policy = by(HashOn::Header("x-user".into()));
    policy.retries.on = RetryOn::parse(["503"]).unwrap();
    let proxy = edge(&origins, policy);
    let lines = "X-User: somebody\r\n";
    let first = met(&proxy, "/", lines).await.0;
    origins[first].always(status(503, ""));
    let second = met(&proxy, "/", lines).await.0;
    assert_ne!(first, second);
    for _ in 0..10 {
        assert_eq!(met(&proxy, "/", lines).await.0, second);
    }
}
