//! Forwarding: what arrives, what comes back.

use std::io::Write as _;

use meshgate_proxy::{EngineOptions, ListenerLimits, Policy};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};

use crate::kit::{Act, Origin, Proxy, field, get, ok, read_message, service, soon, status_of};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

#[tokio::test]
async fn a_request_goes_through_and_says_where_it_came_from() {
    let origin = Origin::start(ok("hello")).await;
    let proxy = Proxy::edge(service(&[&origin], Policy::default()));
    let request = "GET /a/../b?q=1 HTTP/1.1\r\nHost: a.test:80\r\nX-Forwarded-For: 6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\nX-Forwarded-Client-Cert: By=x\r\nMeshgate-Dest: 1\r\nConnection: close, X-Hop, X-Forwarded-For\r\nX-Hop: 1\r\nKeep-Alive: 1\r\n\r\n";
    let answer = proxy.raw(request).await;
    assert_eq!(status_of(&answer), 200, "{answer}");
    assert!(answer.ends_with("hello"));
    assert_eq!(field(&answer, "server"), Some("meshgate"));
    assert!(field(&answer, "date").is_some());
    let seen = &origin.seen()[0];
    assert!(seen.starts_with("GET /b?q=1 HTTP/1.1\r\n"), "{seen}");
    for (name, expected) in [
        ("host", Some("a.test:80")),
        ("x-forwarded-for", Some("127.0.0.1")),
        ("x-real-ip", Some("127.0.0.1")),
        ("x-forwarded-proto", Some("http")),
        ("x-forwarded-host", Some("a.test:80")),
        (
            "forwarded",
            Some("for=127.0.0.1;host=\"a.test:80\";proto=http"),
        ),
        ("x-forwarded-client-cert", None),
        ("meshgate-dest", None),
        ("x-hop", None),
        ("keep-alive", None),
    ] {
        assert_eq!(field(seen, name), expected, "{name} in {seen}");
    }
    assert_eq!(field(seen, "x-request-id").map(str::len), Some(32));
    assert_eq!(field(seen, "traceparent").map(str::len), Some(55));
}

#[tokio::test]
async fn a_trusted_peer_is_believed() {
    let origin = Origin::start(ok("")).await;
    let options = EngineOptions {
        trusted_peers: vec!["127.0.0.0/8".parse().unwrap()],
        ..EngineOptions::default()
    };
    let web = service(&[&origin], Policy::default());
    let proxy = Proxy::edge_with(web, options, ListenerLimits::default());
    let request = "GET / HTTP/1.1\r\nHost: a.test\r\nX-Forwarded-For: 9.9.9.9\r\nX-Forwarded-Proto: https\r\nX-Request-ID: abc\r\nConnection: close\r\n\r\n";
    proxy.raw(request).await;
    let seen = &origin.seen()[0];
    assert_eq!(field(seen, "x-forwarded-for"), Some("9.9.9.9, 127.0.0.1"));
    assert_eq!(field(seen, "x-real-ip"), Some("9.9.9.9"));
    assert_eq!(field(seen, "x-forwarded-proto"), Some("https"));
    assert_eq!(field(seen, "x-request-id"), Some("abc"));
}

#[tokio::test]
async fn connections_are_used_again_at_both_ends() {
    let origin = Origin::start(ok("x")).await;
    let proxy = Proxy::edge(service(&[&origin], Policy::default()));
    let mut client = TcpStream::connect(proxy.address()).await.unwrap();
    let mut buffer = Vec::new();
    for _ in 0..20 {
        client
            .write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
            .await
            .unwrap();
        let answer = soon(read_message(&mut client, &mut buffer)).await.unwrap();
        assert_eq!(status_of(&answer), 200);
    }
    assert_eq!((origin.seen().len(), origin.connections()), (20, 1));
}

#[tokio::test]
async fn bodies_pass_with_their_framing_and_trailers() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 6\r\n\r\n";
    let origin = Origin::start(Act::Say(chunked.into())).await;
    let proxy = Proxy::edge(service(&[&origin], Policy::default()));
    let request = "POST /up HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\nTE: trailers\r\nConnection: close, te\r\n\r\nhello";
    let answer = proxy.raw(request).await;
    assert!(answer.contains("3\r\nabc\r\n0\r\n"), "{answer}");
    assert!(answer.to_lowercase().contains("x-sum: 6"), "{answer}");
    let seen = &origin.seen()[0];
    assert!(seen.ends_with("\r\n\r\nhello"), "{seen}");
    assert_eq!(field(seen, "content-length"), Some("5"));
    let request = "POST /up HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    assert_eq!(status_of(&proxy.raw(request).await), 200);
    assert_eq!(
        field(&origin.seen()[1], "transfer-encoding"),
        Some("chunked")
    );
}

#[tokio::test]
async fn head_and_no_content_have_no_body() {
    let origin = Origin::start(ok("")).await;
    let proxy = Proxy::edge(service(&[&origin], Policy::default()));
    origin.next([Act::Say(
        "HTTP/1.1 200 OK\r\nContent-Length: 42\r\n\r\n".into(),
    )]);
    let answer = proxy
        .raw("HEAD / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n")
        .await;
    assert_eq!(field(&answer, "content-length"), Some("42"));
    assert!(answer.ends_with("\r\n\r\n"));
    origin.next([Act::Say("HTTP/1.1 204 No Content\r\n\r\n".into())]);
    let answer = proxy.get("/").await;
    assert_eq!(status_of(&answer), 204);
    assert!(answer.ends_with("\r\n\r\n"));
}

#[tokio::test]
async fn nowhere_to_go_says_why() {
    let origin = Origin::start(ok("")).await;
    let proxy = Proxy::edge(service(&[&origin], Policy::default()));
    proxy.engine.swap(meshgate_proxy::Snapshot::default());
    let answer = proxy.get("/x").await;
    assert_eq!(status_of(&answer), 404);
    assert_eq!(
        field(&answer, "meshgate-reason"),
        Some("no-route; host \"a.test\"")
    );
    assert_eq!(field(&answer, "server"), Some("meshgate"));
    let json = proxy
        .raw("GET /x HTTP/1.1\r\nHost: a.test\r\nAccept: application/json\r\nConnection: close\r\n\r\n")
        .await;
    assert!(
        json.ends_with(
            "{\"status\":404,\"reason\":\"no-route\",\"detail\":\"host \\\"a.test\\\"\"}\n"
        ),
        "{json}"
    );
    let grpc = proxy
        .raw("POST /x HTTP/1.1\r\nHost: a.test\r\nContent-Type: application/grpc\r\nConnection: close\r\n\r\n")
        .await;
    assert_eq!(
        (status_of(&grpc), field(&grpc, "grpc-status")),
        (200, Some("12"))
    );
    let empty = service(&[], Policy::default());
    proxy.engine.swap(crate::kit::everything_to(empty, vec![]));
    let answer = proxy.raw(&get("/")).await;
    assert_eq!(status_of(&answer), 503);
    assert_eq!(
        field(&answer, "meshgate-reason"),
        Some("no-endpoint; shop/web:80 has no endpoints")
    );
}

#[tokio::test]
async fn a_cut_answer_is_never_shown_as_complete() {
    let origin = Origin::start(ok("")).await;
    let proxy = Proxy::edge(service(&[&origin], Policy::default()));
    let cut = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n";
    origin.next([Act::SayAndClose(cut.into())]);
    let answer = proxy.get("/").await;
    assert!(
        answer.contains("abc") && !answer.contains("0\r\n\r\n"),
        "{answer}"
    );
    assert_eq!(status_of(&proxy.get("/").await), 200);
    assert_eq!(
        origin.connections(),
        2,
        "the cut connection was not used again"
    );
}

#[tokio::test]
async fn drain_finishes_what_was_begun_and_takes_nothing_new() {
    let origin = Origin::start(ok("done")).await;
    let options = EngineOptions {
        drain: std::time::Duration::from_secs(2),
        ..EngineOptions::default()
    };
    let web = service(&[&origin], Policy::default());
    let mut proxy = Proxy::edge_with(web, options, ListenerLimits::default());
    let mut buffer = Vec::new();
    let mut idle = TcpStream::connect(proxy.address()).await.unwrap();
    idle.write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
        .await
        .unwrap();
    soon(read_message(&mut idle, &mut buffer)).await.unwrap();
    let mut busy = TcpStream::connect(proxy.address()).await.unwrap();
    busy.write_all(b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 2\r\n\r\na")
        .await
        .unwrap();
    soon(async {
        while !proxy
            .engine
            .metrics()
            .render()
            .contains("connections_open{listener=\"http\"} 2")
        {
            tokio::task::yield_now().await;
        }
    })
    .await;
    proxy.shutdown.cancel();
    soon(async {
        while TcpStream::connect(proxy.address()).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    // The rest of a request that was begun, and one that crossed the news.
    busy.write_all(b"b").await.unwrap();
    idle.write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
        .await
        .unwrap();
    for client in [&mut busy, &mut idle] {
        let answer = soon(read_message(client, &mut buffer)).await.unwrap();
        assert!(answer.ends_with("done"), "{answer}");
        assert_eq!(field(&answer, "connection"), Some("close"));
        assert_eq!(soon(read_message(client, &mut buffer)).await, None);
    }
    soon(&mut proxy.running).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_connection_carries_only_so_many_requests() {
    let origin = Origin::start(ok("x")).await;
    let limits = ListenerLimits {
        requests_max: 3,
        ..ListenerLimits::default()
    };
    let web = service(&[&origin], Policy::default());
    let proxy = Proxy::edge_with(web, EngineOptions::default(), limits);
    let mut client = TcpStream::connect(proxy.address()).await.unwrap();
    let mut buffer = Vec::new();
    for number in 1..=3 {
        client
            .write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
            .await
            .unwrap();
        let answer = soon(read_message(&mut client, &mut buffer)).await.unwrap();
        let last = field(&answer, "connection") == Some("close");
        assert_eq!((status_of(&answer), last), (200, number == 3), "{answer}");
    }
    assert_eq!(soon(read_message(&mut client, &mut buffer)).await, None);
}

/// A client that will not ask again is woken once: the end of the connection is in the packet of the answer.
#[tokio::test]
async fn the_end_of_the_connection_travels_with_the_last_answer() {
    let both = EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP;
    for bytes in [0, 1024, 20 * 1024] {
        let origin = Origin::start(ok(&"x".repeat(bytes))).await;
        let proxy = Proxy::edge(service(&[&origin], Policy::default()));
        // Were it in another one, it would be late in some of the rounds.
        for round in 0..20 {
            let address = proxy.address();
            let asking = tokio::task::spawn_blocking(move || {
                let mut stream = std::net::TcpStream::connect(address).unwrap();
                stream.write_all(get("/").as_bytes()).unwrap();
                let epoll = Epoll::new(EpollCreateFlags::empty()).unwrap();
                epoll.add(&stream, EpollEvent::new(both, 0)).unwrap();
                let mut events = [EpollEvent::empty()];
                epoll.wait(&mut events, 20_000_u16).unwrap();
                events[0].events()
            });
            let seen = asking.await.unwrap();
            assert_eq!(seen, both, "{bytes} bytes, round {round}");
        }
    }
}
