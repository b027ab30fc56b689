//! Answers that come before the request is whole.

use http::Response;
use tokio::io::AsyncWriteExt;

use crate::by_hand::{CHUNKED, Endpoint, connect, is_closed, post, read_until};
use crate::kit::{Proxy, get, read_message, say, soon, status_of};
use crate::ways::{http2_service, read_all, serve_http2};

#[tokio::test]
async fn an_early_answer_does_not_wait_for_the_body() {
    let (endpoint, proxy) = Endpoint::start().await;
    for (says, left, goes_on) in [
        (
            "HTTP/1.1 413 X\r\nConnection: close\r\nContent-Length: 3\r\n\r\nbig",
            1 << 30,
            false,
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbig",
            1 << 30,
            false,
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbig",
            100_000,
            true,
        ),
    ] {
        let mut client = connect(proxy.address()).await;
        let head = post(&format!("Content-Length: {}\r\n", left + 5), "hello");
        let limited = left > 10 << 20;
        if limited {
            // Over the edge's own limit: without a length nobody knows yet.
            client
                .write_all(post(CHUNKED, "5\r\nhello\r\n").as_bytes())
                .await
                .unwrap();
        } else {
            client.write_all(head.as_bytes()).await.unwrap();
        }
        let mut server = endpoint.accept().await;
        let mut buffer = Vec::new();
        read_until(
            &mut server,
            &mut buffer,
            if limited { "hello\r\n" } else { "hello" },
        )
        .await;
        server.write_all(says.as_bytes()).await.unwrap();
        let mut buffer = Vec::new();
        let answer = soon(read_message(&mut client, &mut buffer)).await.unwrap();
        assert!(answer.ends_with("big"), "{answer}");
        // The endpoint did not get its request: nothing else may follow there.
        assert!(is_closed(&mut server).await);
        if !goes_on {
            let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
            while client.write_all(chunk.as_bytes()).await.is_ok() {}
            assert!(is_closed(&mut client).await);
            continue;
        }
        let rest = "x".repeat(left) + &get("/next");
        client.write_all(rest.as_bytes()).await.unwrap();
        let mut server = endpoint.accept().await;
        let next = soon(read_message(&mut server, &mut Vec::new()))
            .await
            .unwrap();
        assert!(next.starts_with("GET /next "), "{next}");
    }
}

/// A refusal's words may come long after its head, and the request goes on meanwhile. Only another attempt would take the
/// body away from this one, and there is none.
#[tokio::test]
async fn a_refusal_is_whole_however_much_of_the_body_was_kept() {
    for status in [200, 413, 503] {
        let (endpoint, proxy) = Endpoint::start().await;
        let mut client = connect(proxy.address()).await;
        let begin = post(CHUNKED, "5\r\nhello\r\n");
        client.write_all(begin.as_bytes()).await.unwrap();
        let mut server = endpoint.accept().await;
        let mut sent = Vec::new();
        read_until(&mut server, &mut sent, "hello\r\n").await;
        let head = format!("HTTP/1.1 {status} X\r\nContent-Length: 3\r\n\r\n");
        server.write_all(head.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        read_until(&mut client, &mut answer, "\r\n\r\n").await;
        client.write_all(b"4\r\nmore\r\n").await.unwrap();
        read_until(&mut server, &mut sent, "more\r\n").await;
        server.write_all(b"all").await.unwrap();
        read_until(&mut client, &mut answer, "all").await;
    }
}

#[tokio::test]
async fn an_answer_ends_with_the_body_that_it_waits_for() {
    // Both answered the head; then the body turns out to be none, or its sender leaves.
    for bad in ["zz\r\n", ""] {
        let (endpoint, proxy) = Endpoint::start().await;
        let mut client = connect(proxy.address()).await;
        let begin = post(CHUNKED, "5\r\nhello\r\n");
        client.write_all(begin.as_bytes()).await.unwrap();
        let mut server = endpoint.accept().await;
        read_until(&mut server, &mut Vec::new(), "hello\r\n").await;
        let begin = format!("HTTP/1.1 200 OK\r\n{CHUNKED}\r\n2\r\nok\r\n");
        server.write_all(begin.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        read_until(&mut client, &mut answer, "ok\r\n").await;
        match bad {
            "" => client.shutdown().await.unwrap(),
            bad => client.write_all(bad.as_bytes()).await.unwrap(),
        }
        assert!(is_closed(&mut server).await);
        assert!(is_closed(&mut client).await);
    }
}

/// The endpoint answers before it has the whole body. What is left of it belongs to nobody: it is neither cut out of
/// the middle of what the endpoint reads, nor read as the next request's.
#[tokio::test]
async fn an_early_answer_over_http2_does_not_mix_bodies() {
    let (told, mut bodies) = tokio::sync::mpsc::unbounded_channel();
    let (address, _task) = serve_http2(move |request, mut respond| {
        let told = told.clone();
        async move {
            let path = request.uri().path().to_owned();
            let mut body = request.into_body();
            if path == "/early" {
                let data = body.data().await.unwrap().unwrap();
                body.flow_control().release_capacity(data.len()).unwrap();
                respond.send_response(Response::new(()), true).unwrap();
            } else {
                respond.send_response(Response::new(()), true).unwrap();
            }
            let whole = read_all(body).await.map(|(body, _)| body);
            let _ = told.send((path, whole.ok()));
        }
    })
    .await;
    let proxy = Proxy::edge(http2_service(address));
    let mut client = connect(proxy.address()).await;
    let begin = format!("POST /early HTTP/1.1\r\nHost: a.test\r\n{CHUNKED}\r\n1\r\na\r\n");
    client.write_all(begin.as_bytes()).await.unwrap();
    let mut buffer = Vec::new();
    read_until(&mut client, &mut buffer, "\r\n\r\n").await;
    let rest = "1\r\nb\r\n1\r\nc\r\n0\r\n\r\n";
    let next =
        "POST /next HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\nContent-Length: 4\r\n\r\nnext";
    let answer = say(&mut client, &format!("{rest}{next}")).await;
    assert_eq!(status_of(&answer), 200, "{answer}");
    let mut seen = [
        soon(bodies.recv()).await.unwrap(),
        soon(bodies.recv()).await.unwrap(),
    ];
    seen.sort();
    assert_eq!(seen[0], ("/early".into(), None));
    assert_eq!(seen[1], ("/next".into(), Some("next".into())));
}
