//! Input that two servers could read as two requests: refused, and the origin sees nothing of it.

use meshgate_proxy::{EngineOptions, ListenerLimits, Policy};
use std::time::Duration;

use crate::kit::{Origin, Proxy, field, ok, service, status_of};

/// Sends the bytes, then another request on the same connection: it must be answered with the status and closed.
async fn check(request: &str, expected: u16) {
    let origin = Origin::start(ok("secret")).await;
    let limits = ListenerLimits {
        body_bytes_max: Some(1000),
        ..ListenerLimits::default()
    };
    let web = service(&[&origin], Policy::default());
    let proxy = Proxy::edge_with(web, EngineOptions::default(), limits);
    let smuggled =
        format!("{request}GET /smuggled HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n");
    let answer = proxy.raw(&smuggled).await;
    assert_eq!(status_of(&answer), expected, "{request:?}: {answer}");
    let reason = field(&answer, "meshgate-reason");
    assert!(reason.is_some(), "{request:?}: {answer}");
    assert_eq!(
        answer.matches("HTTP/1.1 ").count(),
        1,
        "{request:?}: {answer}"
    );
    let seen = origin.seen();
    assert!(
        !seen.iter().any(|request| request.contains("smuggled")),
        "{request:?} reached the origin as {seen:?}"
    );
}

fn post(fields: &str, body: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n{body}")
}

#[tokio::test]
async fn framing() {
    for (fields, body) in [
        (
            "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
            "0\r\n\r\n",
        ),
        (
            "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n",
            "0\r\n\r\n",
        ),
        ("Content-Length: 3\r\nContent-Length: 3\r\n", "abc"),
        ("Content-Length: +3\r\n", "abc"),
        ("Transfer-Encoding: xchunked\r\n", "0\r\n\r\n"),
        ("Transfer-Encoding: chunked, gzip\r\n", "0\r\n\r\n"),
        ("X: 1\r\n folded\r\n", ""),
        ("X : 1\r\n", ""),
        ("X: 1\n", ""),
    ] {
        check(&post(fields, body), 400).await;
    }
    check(
        "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    )
    .await;
}

#[tokio::test]
async fn hosts_and_targets() {
    for request in [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.test\r\nHost: b.test\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a test\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a@b\r\n\r\n",
        "GET http://b.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n",
        "GET /%00 HTTP/1.1\r\nHost: a.test\r\n\r\n",
        "GET /..;/x HTTP/1.1\r\nHost: a.test\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nHost: a.test\r\n\r\n",
    ] {
        check(request, 400).await;
    }
    let long = "x".repeat(9000);
    check(
        &format!("GET /{long} HTTP/1.1\r\nHost: a.test\r\n\r\n"),
        414,
    )
    .await;
}

#[tokio::test]
async fn sizes() {
    let large = "x".repeat(70_000);
    check(&post(&format!("X: {large}\r\n"), ""), 431).await;
    let many: String = (0..120).map(|n| format!("X{n}: 1\r\n")).collect();
    check(&post(&many, ""), 431).await;
    check(&post("Content-Length: 2000\r\n", &"x".repeat(2000)), 413).await;
}

#[tokio::test]
async fn connect_is_not_served() {
    let origin = Origin::start(ok("")).await;
    let proxy = Proxy::edge(service(&[&origin], Policy::default()));
    let answer = proxy
        .raw("CONNECT a.test:80 HTTP/1.1\r\nHost: a.test:80\r\nConnection: close\r\n\r\n")
        .await;
    assert_eq!(status_of(&answer), 405, "{answer}");
}

#[tokio::test]
async fn an_absolute_target_is_taken_and_rewritten() {
    let origin = Origin::start(ok("")).await;
    let proxy = Proxy::edge(service(&[&origin], Policy::default()));
    let request = "GET http://a.test/x HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";
    assert_eq!(status_of(&proxy.raw(request).await), 200);
    assert!(origin.seen()[0].starts_with("GET /x HTTP/1.1\r\n"));
}

#[tokio::test]
async fn a_chunked_body_over_the_limit_ends_the_connection() {
    let origin = Origin::start(ok("")).await;
    let limits = ListenerLimits {
        body_bytes_max: Some(10),
        ..ListenerLimits::default()
    };
    let web = service(&[&origin], Policy::default());
    let proxy = Proxy::edge_with(web, EngineOptions::default(), limits);
    let request = post(
        "Transfer-Encoding: chunked\r\n",
        "14\r\n01234567890123456789\r\n0\r\n\r\n",
    );
    let answer = proxy.raw(&request).await;
    assert_eq!(status_of(&answer), 413, "{answer}");
}

#[tokio::test]
async fn slow_heads_end_with_408_and_idle_connections_without_a_word() {
    let origin = Origin::start(ok("")).await;
    let limits = ListenerLimits {
        header_timeout: Duration::from_millis(100),
        keep_alive: Duration::from_millis(200),
        ..ListenerLimits::default()
    };
    let web = service(&[&origin], Policy::default());
    let proxy = Proxy::edge_with(web, EngineOptions::default(), limits);
    let answer = proxy.raw("GET / HTTP/1.1\r\nHost: a.te").await;
    assert_eq!(status_of(&answer), 408, "{answer}");
    let answer = proxy.raw("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
}
