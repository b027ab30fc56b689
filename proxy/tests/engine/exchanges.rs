//! Exchanges that are split, pipelined, both ways at once, or done again.

use std::time::Duration;

use http::Request;
use meshgate_proxy::Policy;
use meshgate_routing::upstream::{Backoff, RetryOn, RetryPolicy};
use tokio::io::AsyncWriteExt;

use crate::by_hand::{CHUNKED, Endpoint, connect, data, post, read_until};
use crate::kit::{Origin, Proxy, field, get, ok, raw, read_message, say, service, soon, status};
use crate::ways::{Way, ask_http2};

#[tokio::test]
async fn any_split_is_the_same_request() {
    let fields = format!("X-A: b\r\nConnection: close\r\n{CHUNKED}");
    let request = post(
        &fields,
        "5;x=y\r\nhello\r\n6\r\n world\r\n0\r\nX-Sum: 7\r\n\r\n",
    );
    for way in Way::to_http1(ok("whole")).await {
        for split in 0..request.len() {
            let (first, second) = request.split_at(split);
            let mut client = connect(way.address).await;
            client.write_all(first.as_bytes()).await.unwrap();
            tokio::task::yield_now().await;
            let answer = say(&mut client, second).await;
            assert!(answer.ends_with("whole"), "{} {split}: {answer}", way.name);
        }
        let mut client = connect(way.address).await;
        for byte in request.as_bytes() {
            client.write_all(&[*byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
        let answer = say(&mut client, "").await;
        assert!(answer.ends_with("whole"), "{}: {answer}", way.name);
        for seen in way.seen() {
            let (_, body) = seen.split_once("\r\n\r\n").unwrap();
            assert!(
                data(body).starts_with("hello world"),
                "{}: {seen}",
                way.name
            );
            let end = body.to_ascii_lowercase();
            assert!(
                end.ends_with("0\r\nx-sum: 7\r\n\r\n"),
                "{}: {seen}",
                way.name
            );
        }
        assert_eq!(way.seen().len(), request.len() + 1, "{}", way.name);
    }
}

#[tokio::test]
async fn any_split_is_the_same_answer() {
    let says = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n0\r\nX-Sum: 7\r\n\r\n";
    let (endpoint, proxy) = Endpoint::start().await;
    let mut client = connect(proxy.address()).await;
    let (mut client_read, mut server_read) = (Vec::new(), Vec::new());
    let mut server = None;
    for split in 0..=says.len() {
        client
            .write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
            .await
            .unwrap();
        let server = match &mut server {
            Some(server) => server,
            none => none.insert(endpoint.accept().await),
        };
        soon(read_message(server, &mut server_read)).await.unwrap();
        let (first, second) = says.split_at(split);
        server.write_all(first.as_bytes()).await.unwrap();
        tokio::task::yield_now().await;
        server.write_all(second.as_bytes()).await.unwrap();
        let answer = soon(read_message(&mut client, &mut client_read)).await;
        let answer = answer.unwrap();
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(data(body).starts_with("hello"), "{split}: {body}");
        assert!(body.ends_with("0\r\nX-Sum: 7\r\n\r\n"), "{split}: {body}");
    }
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    for way in Way::to_http1(ok("")).await {
        let acts = (0..6).map(|number| ok(&format!("answer {number}")));
        way.origin().next(acts);
        let request = [
            "GET /0 HTTP/1.1\r\nHost: a.test\r\n\r\n",
            "\r\nPOST /1 HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\n\r\nhello",
            "POST /2 HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nGET\r\n0\r\n\r\n",
            "POST /3 HTTP/1.1\r\nHost: a.test\r\nContent-Length: 0\r\n\r\n",
            "GET /4 HTTP/1.1\r\nHost: a.test\r\n\r\n",
            "GET /5 HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\nGET /6 HTTP/1.1\r\nHost: a.test\r\n\r\n",
        ]
        .concat();
        let answers = raw(way.address, &request).await;
        let told: Vec<&str> = answers
            .split("answer ")
            .skip(1)
            .map(|rest| &rest[..1])
            .collect();
        assert_eq!(told.concat(), "012345", "{}: {answers}", way.name);
        let seen = way.seen();
        let paths: Vec<&str> = seen
            .iter()
            .filter_map(|seen| seen.split(' ').nth(1))
            .collect();
        assert_eq!(paths, ["/0", "/1", "/2", "/3", "/4", "/5"], "{}", way.name);
        assert!(seen[1].ends_with("\r\n\r\nhello") && seen[2].ends_with("3\r\nGET\r\n0\r\n\r\n"));
        for (number, length) in [(0, None), (1, Some("5")), (3, Some("0")), (4, None)] {
            assert_eq!(field(&seen[number], "content-length"), length, "{number}");
        }
        assert_eq!(field(&seen[0], "transfer-encoding"), None);
    }
}

#[tokio::test]
async fn http_1_0_connections_persist_when_asked_to() {
    let origin = Origin::start(ok("x")).await;
    let proxy = Proxy::edge(service(&[&origin], Policy::default()));
    let mut client = connect(proxy.address()).await;
    let mut buffer = Vec::new();
    for persists in [true, true, false] {
        let connection = if persists { "keep-alive" } else { "x" };
        let request = format!("GET / HTTP/1.0\r\nConnection: {connection}\r\n\r\n");
        client.write_all(request.as_bytes()).await.unwrap();
        let answer = soon(read_message(&mut client, &mut buffer)).await.unwrap();
        assert!(answer.starts_with("HTTP/1.0 200 "), "{answer}");
        let said = if persists { "keep-alive" } else { "close" };
        assert_eq!(field(&answer, "connection"), Some(said));
    }
    assert_eq!(soon(read_message(&mut client, &mut buffer)).await, None);
    let seen = &origin.seen()[0];
    assert!(seen.starts_with("GET / HTTP/1.1\r\nHost: \r\n"), "{seen}");
}

#[tokio::test]
async fn a_client_is_told_to_send_its_body_once_somebody_wants_it() {
    for way in Way::to_http1(ok("thanks")).await {
        let mut client = connect(way.address).await;
        let mut buffer = Vec::new();
        for fields in ["Content-Length: 5\r\n", CHUNKED] {
            let request = post(&format!("Expect: 100-continue\r\n{fields}"), "");
            client.write_all(request.as_bytes()).await.unwrap();
            read_until(&mut client, &mut buffer, "HTTP/1.1 100 Continue\r\n\r\n").await;
            buffer.clear();
            let body = if fields == CHUNKED {
                "5\r\nhello\r\n0\r\n\r\n"
            } else {
                "hello"
            };
            client.write_all(body.as_bytes()).await.unwrap();
            let answer = soon(read_message(&mut client, &mut buffer)).await.unwrap();
            assert!(answer.ends_with("thanks"), "{}: {answer}", way.name);
        }
        // Whoever does not wait, or speaks HTTP/1.0, is not told.
        let eager = post(
            "Expect: 100-continue\r\nContent-Length: 5\r\nConnection: close\r\n",
            "hel",
        );
        let mut client = connect(way.address).await;
        client.write_all(eager.as_bytes()).await.unwrap();
        let answer = say(&mut client, "lo").await;
        assert!(
            answer.starts_with("HTTP/1.1 200 "),
            "{}: {answer}",
            way.name
        );
        let old = "POST / HTTP/1.0\r\nHost: a.test\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello";
        let answer = raw(way.address, old).await;
        assert!(
            answer.starts_with("HTTP/1.0 200 "),
            "{}: {answer}",
            way.name
        );
    }
}

#[tokio::test]
async fn both_directions_flow_at_once() {
    let (endpoint, proxy) = Endpoint::start().await;
    let mut client = connect(proxy.address()).await;
    client
        .write_all(post(CHUNKED, "").as_bytes())
        .await
        .unwrap();
    let mut server = endpoint.accept().await;
    let (mut at_server, mut at_client) = (Vec::new(), Vec::new());
    read_until(&mut server, &mut at_server, "\r\n\r\n").await;
    server
        .write_all(format!("HTTP/1.1 200 OK\r\n{CHUNKED}\r\n").as_bytes())
        .await
        .unwrap();
    read_until(&mut client, &mut at_client, "\r\n\r\n").await;
    for word in ["1\r\na\r\n", "2\r\nbc\r\n", "3\r\ndef\r\n", "0\r\n\r\n"] {
        client.write_all(word.as_bytes()).await.unwrap();
        read_until(&mut server, &mut at_server, word).await;
        server.write_all(word.as_bytes()).await.unwrap();
        read_until(&mut client, &mut at_client, word).await;
    }
    // The exchange is over: both connections serve another.
    client.write_all(get("/again").as_bytes()).await.unwrap();
    let again = soon(read_message(&mut server, &mut Vec::new()))
        .await
        .unwrap();
    assert!(again.starts_with("GET /again "), "{again}");
}

#[tokio::test]
async fn bodies_are_sent_again_as_they_were() {
    let policy = || Policy {
        retries: RetryPolicy {
            on: RetryOn::parse(["503"]).unwrap(),
            backoff: Backoff::new(Duration::from_millis(1), Duration::from_millis(2)),
            ..RetryPolicy::default()
        },
        ..Policy::default()
    };
    let origin = Origin::start(ok("yes")).await;
    let proxy = Proxy::edge(service(&[&origin], policy()));
    let close = format!("Connection: close\r\n{CHUNKED}");
    for (request, body) in [
        (
            post("Connection: close\r\nContent-Length: 5\r\n", "hello"),
            "hello",
        ),
        (post("Connection: close\r\nContent-Length: 0\r\n", ""), ""),
        (
            post(&close, "5\r\nhello\r\n0\r\nX: 1\r\n\r\n"),
            "5\r\nhello\r\n0\r\nx: 1\r\n\r\n",
        ),
        (post(&close, "1\r\na\r\n1\r\nb\r\n0\r\n\r\n"), "ab"),
        (post(&close, "0\r\n\r\n"), ""),
    ] {
        origin.next([status(503, "")]);
        let answer = proxy.raw(&request).await;
        assert!(answer.ends_with("yes"), "{request:?}: {answer}");
        let seen = origin.seen().pop().unwrap();
        let (_, again) = seen.split_once("\r\n\r\n").unwrap();
        assert_eq!(again.to_ascii_lowercase(), body, "{request:?}: {seen}");
    }
    // A body that turned out to be empty.
    origin.next([status(503, "")]);
    let request = Request::post("http://a.test/").body(()).unwrap();
    let answer = ask_http2(proxy.address(), request, &[""], None)
        .await
        .unwrap();
    assert_eq!(
        (answer.status, answer.body.unwrap().0.as_str()),
        (200, "yes")
    );
}
