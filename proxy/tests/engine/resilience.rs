//! Failing endpoints: retried elsewhere, ejected, taken back; timeouts; budgets.

use std::net::SocketAddr;
use std::time::Duration;

use meshgate_proxy::Policy;
use meshgate_routing::upstream::{
    Algorithm, Backoff, BreakerPolicy, RetryOn, RetryPolicy, SuccessRatePolicy,
};

use crate::kit::{
    Act, Origin, Proxy, endpoint, everything_to, field, get, ok, raw, service, service_of, status,
    status_of, until,
};

fn retrying(on: &[&str]) -> RetryPolicy {
    RetryPolicy {
        on: RetryOn::parse(on.iter().copied()).unwrap(),
        backoff: Backoff::new(Duration::from_millis(1), Duration::from_millis(2)),
        ..RetryPolicy::default()
    }
}

#[tokio::test]
async fn a_dead_endpoint_costs_no_request() {
    let (dead, alive) = (
        Origin::start(ok("")).await,
        Origin::start(ok("alive")).await,
    );
    let web = service(&[&dead, &alive], Policy::default());
    let proxy = Proxy::edge(web);
    drop(dead);
    for _ in 0..20 {
        let answer = proxy.get("/").await;
        assert!(answer.ends_with("alive"), "{answer}");
    }
}

#[tokio::test]
async fn an_error_is_retried_elsewhere_with_its_body() {
    let (bad, good) = (
        Origin::start(status(503, "no")).await,
        Origin::start(ok("yes")).await,
    );
    let policy = Policy {
        retries: retrying(&["503"]),
        ..Policy::default()
    };
    let proxy = Proxy::edge(service(&[&bad, &good], policy));
    let request =
        "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello";
    for _ in 0..10 {
        let answer = proxy.raw(request).await;
        assert!(answer.ends_with("yes"), "{answer}");
    }
    assert!(good.seen().iter().all(|request| request.ends_with("hello")));
}

/// A status without a message is in the head of the answer.
#[tokio::test]
async fn a_grpc_status_is_retried_by_its_name() {
    let check = async |on: &str, grpc_status: &str, retried: bool| {
        let failing = format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n{grpc_status}\r\n");
        let (bad, good) = (
            Origin::start(Act::Say(failing)).await,
            Origin::start(ok("yes")).await,
        );
        let policy = Policy {
            retries: retrying(&[on]),
            algorithm: Algorithm::RoundRobin,
            ..Policy::default()
        };
        let proxy = Proxy::edge(service(&[&bad, &good], policy));
        let mut good_answers = 0;
        for _ in 0..6 {
            let answer = proxy.get("/").await;
            assert_eq!(status_of(&answer), 200);
            good_answers += usize::from(answer.ends_with("yes"));
        }
        assert!(!bad.seen().is_empty());
        assert_eq!(good_answers == 6, retried, "{on} {grpc_status:?}");
    };
    check("UNAVAILABLE", "grpc-status: 14\r\n", true).await;
    check("RESOURCE_EXHAUSTED", "grpc-status: 14\r\n", false).await;
    check("UNAVAILABLE", "grpc-status: 0\r\n", false).await;
    check("UNAVAILABLE", "grpc-status: many\r\n", false).await;
    check("503", "grpc-status: 14\r\n", false).await;
}

#[tokio::test]
async fn what_may_have_been_processed_is_not_repeated_unasked() {
    let origin = Origin::start(ok("")).await;
    let proxy = Proxy::edge(service(&[&origin], Policy::default()));
    origin.next([Act::Close]);
    let request =
        "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello";
    let answer = proxy.raw(request).await;
    assert_eq!(status_of(&answer), 502, "{answer}");
    assert!(
        field(&answer, "meshgate-reason")
            .unwrap()
            .starts_with("upstream-reset; ")
    );
    assert_eq!(origin.seen().len(), 1);
}

#[tokio::test]
async fn a_connection_that_its_server_closed_meanwhile_costs_no_request() {
    let origin = Origin::start(ok("")).await;
    let proxy = Proxy::edge(service(&[&origin], Policy::default()));
    for _ in 0..10 {
        // Answers as if it would keep the connection, and closes it.
        let text = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        origin.next([Act::SayAndClose(text.into())]);
        let answer = proxy.get("/").await;
        assert_eq!(status_of(&answer), 200, "{answer}");
    }
}

#[tokio::test]
async fn a_per_try_timeout_holds_and_another_endpoint_answers() {
    let (slow, fast) = (
        Origin::start(Act::Hang).await,
        Origin::start(ok("fast")).await,
    );
    let policy = Policy {
        per_try_timeout: Some(Duration::from_millis(300)),
        retries: retrying(&["PerTryTimeout"]),
        ..Policy::default()
    };
    let proxy = Proxy::edge(service(&[&slow, &fast], policy));
    for _ in 0..6 {
        let answer = proxy.get("/").await;
        assert!(answer.ends_with("fast"), "{answer}");
    }
}

#[tokio::test]
async fn timeouts_say_which_one_it_was() {
    let origin = Origin::start(Act::Hang).await;
    for (request, per_try, reason) in [
        (
            None,
            Some(Duration::from_millis(30)),
            "per-try-timeout; no answer within 30ms",
        ),
        (
            Some(Duration::from_millis(30)),
            None,
            "request-timeout; no answer within 30ms",
        ),
    ] {
        let policy = Policy {
            request_timeout: request,
            per_try_timeout: per_try,
            ..Policy::default()
        };
        let proxy = Proxy::edge(service(&[&origin], policy));
        let answer = proxy.get("/").await;
        assert_eq!(status_of(&answer), 504, "{answer}");
        assert_eq!(field(&answer, "meshgate-reason"), Some(reason));
    }
}

#[tokio::test]
async fn a_failing_endpoint_is_ejected_and_taken_back() {
    let (bad, good) = (
        Origin::start(status(500, "")).await,
        Origin::start(ok("")).await,
    );
    let policy = Policy {
        breaker: BreakerPolicy {
            consecutive_failures: 2,
            ejection_base: Duration::from_millis(300),
            ..BreakerPolicy::default()
        },
        ..Policy::default()
    };
    let proxy = Proxy::edge(service(&[&bad, &good], policy));
    let mut failed = 0;
    while proxy
        .engine
        .metrics()
        .render()
        .matches("result=\"ejected\"")
        .count()
        == 0
    {
        failed += usize::from(status_of(&proxy.get("/").await) == 500);
    }
    assert_eq!(failed, 2);
    let before = bad.seen().len();
    bad.always(ok("back"));
    // Its ejection ends by itself; one probe decides.
    crate::kit::soon(async {
        while bad.seen().len() == before {
            proxy.get("/").await;
        }
    })
    .await;
    assert!(
        proxy
            .engine
            .metrics()
            .render()
            .contains("result=\"returned\"")
    );
}

/// Every second request fails: never two in a row.
#[tokio::test]
async fn who_fails_too_often_is_ejected() {
    let (bad, good) = (
        Origin::start(status(500, "")).await,
        Origin::start(ok("")).await,
    );
    let breaker = BreakerPolicy {
        consecutive_failures: 2,
        success_rate: Some(SuccessRatePolicy {
            below: 80,
            window: Duration::from_secs(60),
            min_requests: 10,
        }),
        ejection_base: Duration::from_secs(60),
        ..BreakerPolicy::default()
    };
    let policy = Policy {
        breaker,
        algorithm: Algorithm::RoundRobin,
        ..Policy::default()
    };
    let proxy = Proxy::edge(service(&[&bad, &good], policy));
    for turn in 0..40 {
        bad.next([status(if turn % 2 == 0 { 200 } else { 500 }, "")]);
        proxy.get("/").await;
        proxy.get("/").await;
    }
    assert_eq!((bad.seen().len(), good.seen().len()), (10, 70));
}

/// Who keeps silent fails as well, whichever timeout ends that; who was not asked a whole question does not.
#[tokio::test]
async fn a_timeout_counts_once_everything_was_sent() {
    let whole =
        "POST / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi";
    let half = "POST / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\nContent-Length: 2\r\n\r\nh";
    let soon = Some(Duration::from_millis(50));
    for (request, per_try, asked, is_ejected) in [
        (soon, None, &get("/")[..], true),
        (None, soon, &get("/")[..], true),
        (soon, None, whole, true),
        (None, soon, whole, true),
        (soon, None, half, false),
        (None, soon, half, false),
    ] {
        let policy = Policy {
            request_timeout: request,
            per_try_timeout: per_try,
            breaker: BreakerPolicy {
                consecutive_failures: 1,
                ejection_max_percent: 100,
                ejection_base: Duration::from_secs(60),
                ..BreakerPolicy::default()
            },
            ..Policy::default()
        };
        let origin = Origin::start(Act::Hang).await;
        let proxy = Proxy::edge(service(&[&origin], policy));
        let answer = proxy.raw(asked).await;
        assert_eq!(status_of(&answer), 504, "{answer}");
        let metrics = proxy.engine.metrics().render();
        let ejected = metrics.contains("result=\"ejected\"");
        assert_eq!(ejected, is_ejected, "{request:?} {per_try:?} {asked:?}");
    }
}

#[tokio::test]
async fn the_only_endpoint_is_never_ejected() {
    let origin = Origin::start(status(500, "")).await;
    let policy = Policy {
        breaker: BreakerPolicy {
            consecutive_failures: 1,
            ..BreakerPolicy::default()
        },
        ..Policy::default()
    };
    let proxy = Proxy::edge(service(&[&origin], policy));
    for _ in 0..10 {
        assert_eq!(status_of(&proxy.get("/").await), 500);
    }
    assert_eq!(origin.seen().len(), 10);
}

#[tokio::test]
async fn the_budget_bounds_retries() {
    let origin = Origin::start(status(503, "")).await;
    let policy = Policy {
        retries: RetryPolicy {
            budget_percent: 20,
            budget_min_per_second: 0,
            ..retrying(&["503"])
        },
        breaker: BreakerPolicy {
            consecutive_failures: 0,
            ..BreakerPolicy::default()
        },
        ..Policy::default()
    };
    let proxy = Proxy::edge(service(&[&origin], policy));
    for _ in 0..50 {
        assert_eq!(status_of(&proxy.get("/").await), 503);
    }
    let sent = origin.seen().len();
    assert!((51..=60).contains(&sent), "{sent}");
}

#[tokio::test]
async fn no_connection_is_used_again_after_an_incomplete_exchange() {
    let origin = Origin::start(ok("")).await;
    let proxy = Proxy::edge(service(&[&origin], Policy::default()));
    // Answered before the request was read; what follows on that connection would be read as a request.
    origin.next([Act::Say(
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".into(),
    )]);
    proxy.get("/one").await;
    proxy.get("/two").await;
    assert_eq!(origin.connections(), 2);
}

#[tokio::test]
async fn a_client_that_leaves_is_not_the_endpoints_fault() {
    let origin = Origin::start(ok("")).await;
    let policy = Policy {
        breaker: BreakerPolicy {
            consecutive_failures: 1,
            ejection_max_percent: 100,
            ..BreakerPolicy::default()
        },
        ..Policy::default()
    };
    let proxy = Proxy::edge(service(&[&origin], policy));
    for _ in 0..3 {
        use tokio::io::AsyncWriteExt;
        let mut client = tokio::net::TcpStream::connect(proxy.address())
            .await
            .unwrap();
        client
            .write_all(b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 10\r\n\r\nabc")
            .await
            .unwrap();
        drop(client);
    }
    assert_eq!(status_of(&proxy.get("/").await), 200);
}

/// An address that takes no connection and refuses none, as that of a pod that is gone.
struct Silent {
    socket: socket2::Socket,
    _fill: Vec<std::net::TcpStream>,
}

impl Silent {
    fn start() -> Self {
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        let address: SocketAddr = "127.0.0.1:0".parse().unwrap();
        socket.bind(&address.into()).unwrap();
        socket.listen(0).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        // With nobody accepting, a queue for none is full after one.
        let fill = std::net::TcpStream::connect(address).unwrap();
        Self {
            socket,
            _fill: vec![fill],
        }
    }

    fn address(&self) -> SocketAddr {
        self.socket.local_addr().unwrap().as_socket().unwrap()
    }
}

/// Connections to an endpoint that leaves fail for nobody's record: it would never be struck from it again.
#[tokio::test]
async fn an_endpoint_that_leaves_while_it_fails_is_not_counted() {
    let silent = [Silent::start(), Silent::start()];
    let (bad, good) = (
        Origin::start(status(500, "")).await,
        Origin::start(ok("")).await,
    );
    let policy = || Policy {
        algorithm: Algorithm::RoundRobin,
        connect_timeout: Duration::from_secs(600),
        breaker: BreakerPolicy {
            consecutive_failures: 1,
            ..BreakerPolicy::default()
        },
        ..Policy::default()
    };
    let silent_ones = silent
        .iter()
        .map(|silent| endpoint(silent.address(), "silent"));
    let proxy = Proxy::edge(service_of(silent_ones.collect(), policy(), None));
    let address = proxy.address();
    let ask = || tokio::spawn(async move { raw(address, &get("/")).await });
    let asked = [ask(), ask(), ask(), ask()];
    let open = "meshgate_connections_open{listener=\"http\"} 4";
    until(|| proxy.engine.metrics().render().contains(open)).await;
    let before = proxy.engine.snapshot();
    let previous = before.services.named("shop/web:80").map(|web| &**web);
    let others = vec![endpoint(bad.address, "bad"), endpoint(good.address, "good")];
    let renewed = service_of(others, policy(), previous);
    proxy.engine.swap(everything_to(renewed, Vec::new()));
    for answer in asked {
        answer.await.unwrap();
    }
    // There is room for one of the two that are there now.
    proxy.get("/").await;
    proxy.get("/").await;
    let before = bad.seen().len();
    for _ in 0..6 {
        assert_eq!(status_of(&proxy.get("/").await), 200);
    }
    assert_eq!(bad.seen().len(), before);
}

#[tokio::test]
async fn an_endpoint_that_leaves_is_not_waited_for() {
    let (gone, alive) = (Silent::start(), Origin::start(ok("alive")).await);
    let policy = || Policy {
        // Longer than the test may take: only leaving ends the attempt.
        connect_timeout: Duration::from_secs(600),
        ..Policy::default()
    };
    let web = service_of(vec![endpoint(gone.address(), "gone")], policy(), None);
    let proxy = Proxy::edge(web);
    let answer = tokio::spawn({
        let address = proxy.address();
        async move { raw(address, &get("/")).await }
    });
    let accepted = "meshgate_connections_open{listener=\"http\"} 1";
    while !proxy.engine.metrics().render().contains(accepted) {
        tokio::task::yield_now().await;
    }
    let before = proxy.engine.snapshot();
    let previous = before
        .services
        .named("shop/web:80")
        .map(|service| &**service);
    let endpoints = vec![endpoint(alive.address, "alive")];
    let renewed = service_of(endpoints, policy(), previous);
    proxy.engine.swap(everything_to(renewed, Vec::new()));
    let answer = answer.await.unwrap();
    assert!(answer.ends_with("alive"), "{answer}");
}
