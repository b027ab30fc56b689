//! Exchanges that are slow, split, early, both ways at once, or left in the middle.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use meshgate_proxy::{EngineOptions, ListenerLimits, Policy};
use meshgate_routing::upstream::{Backoff, RetryOn, RetryPolicy};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use crate::kit::{
    Act, Origin, Proxy, endpoint, field, get, ok, raw, read_message, say, service, service_of,
    soon, status, status_of, until,
};
use crate::ways::{Way, ask_http2, http2_service, read_all, serve_http2};

/// An endpoint whose connections a test handles by itself.
struct Endpoint(TcpListener);

impl Endpoint {
    async fn start() -> (Self, Proxy) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let web = service_of(vec![endpoint(address, "pod")], Policy::default(), None);
        (Self(listener), Proxy::edge(web))
    }

    async fn accept(&self) -> TcpStream {
        soon(self.0.accept()).await.unwrap().0
    }
}

async fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Reads until these bytes came.
async fn read_until(stream: &mut TcpStream, buffer: &mut Vec<u8>, end: &str) {
    while !buffer.ends_with(end.as_bytes()) {
        let count = soon(stream.read_buf(buffer)).await.unwrap();
        assert_ne!(count, 0, "{}", String::from_utf8_lossy(buffer));
    }
}

/// Whether the other end is closed, with or without an error.
async fn is_closed(stream: &mut TcpStream) -> bool {
    let mut rest = [0; 4096];
    loop {
        match soon(stream.read(&mut rest)).await {
            Ok(0) | Err(_) => return true,
            Ok(_) => {}
        }
    }
}

fn post(fields: &str, body: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n{body}")
}

const CHUNKED: &str = "Transfer-Encoding: chunked\r\n";

/// What is in the chunks of a body, without their sizes.
fn data(chunks: &str) -> String {
    chunks.split("\r\n").skip(1).step_by(2).collect()
}

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

#[tokio::test]
async fn a_body_that_stops_coming_is_given_up() {
    let origin = Origin::start(ok("")).await;
    let limits = ListenerLimits {
        body_idle_timeout: Duration::from_millis(50),
        ..ListenerLimits::default()
    };
    let web = service(&[&origin], Policy::default());
    let proxy = Proxy::edge_with(web, EngineOptions::default(), limits);
    for request in [
        post("Content-Length: 5\r\n", "he"),
        post(CHUNKED, "5\r\nhe"),
    ] {
        let answer = proxy.raw(&request).await;
        assert_eq!(status_of(&answer), 408, "{answer}");
        assert_eq!(field(&answer, "connection"), Some("close"));
    }
    assert_eq!(origin.seen(), [""; 0]);
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

/// More than all buffers on the way together.
const LARGE: usize = 64 * 1024 * 1024;
const PIECE: usize = 256 * 1024;

/// A client that sends all before it reads anything, and an endpoint that sends without waiting.
#[tokio::test]
async fn a_client_that_reads_late_may_send_first() {
    let limits = ListenerLimits {
        body_bytes_max: None,
        ..ListenerLimits::default()
    };
    let http1 = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let first = service_of(
        vec![endpoint(http1.local_addr().unwrap(), "pod")],
        Policy::default(),
        None,
    );
    let serving = tokio::spawn(async move {
        let (mut stream, _) = http1.accept().await.unwrap();
        let (mut read, mut write) = stream.split();
        let sending = async {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n");
            write.write_all(head.as_bytes()).await.unwrap();
            for _ in 0..LARGE / PIECE {
                write.write_all(&vec![b'a'; PIECE]).await.unwrap();
            }
        };
        let reading = async {
            let mut buffer = vec![0; PIECE];
            let mut count = 0;
            while count < LARGE {
                count += read.read(&mut buffer).await.unwrap();
            }
        };
        tokio::join!(sending, reading);
        std::future::pending::<()>().await;
    });
    let (http2, http2_task) = serve_http2(|request, mut respond| async move {
        let mut send = respond.send_response(Response::new(()), false).unwrap();
        let reading = read_all(request.into_body());
        let sending = async {
            for _ in 0..LARGE / PIECE {
                let mut piece = Bytes::from(vec![b'a'; PIECE]);
                while !piece.is_empty() {
                    send.reserve_capacity(piece.len());
                    let room = std::future::poll_fn(|cx| send.poll_capacity(cx)).await;
                    let room = room.unwrap().unwrap().min(piece.len());
                    send.send_data(piece.split_to(room), false).unwrap();
                }
            }
            send.send_data(Bytes::new(), true).unwrap();
        };
        let (read, ()) = tokio::join!(reading, sending);
        assert_eq!(read.unwrap().0.len(), LARGE);
    })
    .await;
    for service in [first, http2_service(http2)] {
        let proxy = Proxy::edge_with(service, EngineOptions::default(), limits);
        let mut client = connect(proxy.address()).await;
        let head = post(
            &format!("Content-Length: {LARGE}\r\nConnection: close\r\n"),
            "",
        );
        client.write_all(head.as_bytes()).await.unwrap();
        for _ in 0..LARGE / PIECE {
            soon(client.write_all(&vec![b'b'; PIECE])).await.unwrap();
        }
        let mut buffer = vec![0; PIECE];
        let mut count = 0;
        loop {
            match soon(client.read(&mut buffer)).await.unwrap() {
                0 => break,
                read => count += read,
            }
        }
        assert!(count > LARGE && count < LARGE + LARGE / 100, "{count}");
    }
    serving.abort();
    http2_task.abort();
}

#[tokio::test]
async fn a_client_that_leaves_frees_the_endpoint() {
    let sse = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n";
    for (request, says) in [
        // Before an answer, within one, and in the middle of a body.
        (get("/"), ""),
        (get("/"), sse),
        (post("Content-Length: 5\r\n", "hello"), ""),
        (post("Content-Length: 5\r\n", "hello"), sse),
        (post("Content-Length: 5\r\n", "he"), ""),
        (post("Content-Length: 5\r\n", "he"), sse),
    ] {
        // A client that closes its half only is taken for gone as well.
        for half in [false, true] {
            let (endpoint, proxy) = Endpoint::start().await;
            let mut client = connect(proxy.address()).await;
            client.write_all(request.as_bytes()).await.unwrap();
            let mut server = endpoint.accept().await;
            let end = &request[request.len() - 2..];
            read_until(&mut server, &mut Vec::new(), end).await;
            server.write_all(says.as_bytes()).await.unwrap();
            if !says.is_empty() {
                read_until(&mut client, &mut Vec::new(), "data: 1\n\n\r\n").await;
            }
            match half {
                true => client.shutdown().await.unwrap(),
                false => drop(client),
            }
            assert!(is_closed(&mut server).await, "{request:?} {says:?}");
            let open = "meshgate_connections_open{listener=\"http\"} 0";
            until(|| proxy.engine.metrics().render().contains(open)).await;
        }
    }
}

#[tokio::test]
async fn a_client_that_leaves_frees_the_http2_endpoint() {
    for (request, complete) in [
        (get("/"), true),
        (post("Content-Length: 5\r\n", "hello"), true),
        (post(CHUNKED, "5\r\nhello\r\n0\r\n\r\n"), true),
        (post("Content-Length: 5\r\n", "he"), false),
    ] {
        for answers in [false, true] {
            let (arrived, has_arrived) = oneshot::channel();
            let (left, has_left) = oneshot::channel();
            let ends = std::sync::Mutex::new(Some((arrived, left)));
            let (address, _task) = serve_http2(move |request, mut respond| {
                let (arrived, left) = ends.lock().unwrap().take().unwrap();
                async move {
                    let mut body = request.into_body();
                    while complete && !body.is_end_stream() {
                        let data = body.data().await.transpose().unwrap();
                        let length = data.map_or(0, |data| data.len());
                        body.flow_control().release_capacity(length).unwrap();
                    }
                    let mut stream = None;
                    if answers {
                        let sent = respond.send_response(Response::new(()), false);
                        let sent = stream.insert(sent.unwrap());
                        sent.send_data(Bytes::from_static(b"data"), false).unwrap();
                    }
                    arrived.send(()).unwrap();
                    let reset = match &mut stream {
                        Some(stream) => std::future::poll_fn(|cx| stream.poll_reset(cx)).await,
                        None => std::future::poll_fn(|cx| respond.poll_reset(cx)).await,
                    };
                    let _ = left.send(reset.is_ok());
                }
            })
            .await;
            let proxy = Proxy::edge(http2_service(address));
            let mut client = connect(proxy.address()).await;
            client.write_all(request.as_bytes()).await.unwrap();
            soon(has_arrived).await.unwrap();
            if answers {
                read_until(&mut client, &mut Vec::new(), "data\r\n").await;
            }
            drop(client);
            let context = format!("{request:?} {answers}");
            assert!(soon(has_left).await.unwrap(), "{context}");
        }
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

#[tokio::test]
async fn an_upgrade_is_what_was_asked_for_or_nothing() {
    let ask =
        "GET /chat HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: a.test\r\n\r\n";
    // Refused: what was said in the new protocol is not read in the old one.
    for way in Way::to_http1(ok("no")).await {
        let answer = raw(way.address, &format!("{ask}{smuggled}")).await;
        assert!(answer.ends_with("no"), "{}: {answer}", way.name);
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{}", way.name);
        assert_eq!(way.seen().len(), 1, "{}", way.name);
        // Nor is the endpoint's connection used again.
        let before = way.origin().connections();
        raw(way.address, &get("/")).await;
        assert_eq!(way.origin().connections(), before + 1, "{}", way.name);
    }
    // Agreed to something else.
    let other = "HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n";
    for way in Way::to_http1(Act::Say(other.into())).await {
        let answer = raw(
            way.address,
            &ask.replace("Upgrade\r\n", "Upgrade, close\r\n"),
        )
        .await;
        assert_eq!(status_of(&answer), 502, "{}: {answer}", way.name);
    }
}

#[tokio::test]
async fn trailers_cross_versions() {
    let says = format!("HTTP/1.1 200 OK\r\n{CHUNKED}\r\n1\r\na\r\n0\r\nX-Sum: 7\r\n\r\n");
    let origin = Origin::start(Act::Say(says)).await;
    let proxy = Proxy::edge(service(&[&origin], Policy::default()));
    let request = Request::post("http://a.test/").body(()).unwrap();
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", "8".parse().unwrap());
    trailers.insert("authorization", "9".parse().unwrap());
    let answer = ask_http2(proxy.address(), request, &["b"], Some(trailers)).await;
    let (body, trailers) = answer.unwrap().body.unwrap();
    assert_eq!(
        (body.as_str(), &trailers.unwrap()["x-sum"]),
        ("a", &"7".parse().unwrap())
    );
    let seen = &origin.seen()[0];
    assert!(
        seen.ends_with("\r\n\r\n1\r\nb\r\n0\r\nx-sum: 8\r\n\r\n"),
        "{seen}"
    );
    // From HTTP/1 to HTTP/2.
    let (address, _task) = serve_http2(|request, mut respond| async move {
        let (body, trailers) = read_all(request.into_body()).await.unwrap();
        let mut send = respond.send_response(Response::new(()), false).unwrap();
        send.send_data(body.into(), false).unwrap();
        send.send_trailers(trailers.unwrap()).unwrap();
    })
    .await;
    let proxy = Proxy::edge(http2_service(address));
    let request = post(
        &format!("Connection: close\r\n{CHUNKED}"),
        "1\r\na\r\n0\r\nX-Sum: 7\r\nCookie: x\r\n\r\n",
    );
    let answer = proxy.raw(&request).await;
    assert!(
        answer.ends_with("\r\n\r\n1\r\na\r\n0\r\nx-sum: 7\r\n\r\n"),
        "{answer}"
    );
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

#[tokio::test]
async fn what_http2_cannot_say_is_refused() {
    for way in Way::all().await {
        let answer = raw(way.address, &get("/admin?q=<b>")).await;
        let seen = way.seen();
        match status_of(&answer) {
            // The origin is as strict as it likes.
            400 | 502 => assert_eq!(seen, [""; 0], "{}", way.name),
            _ => assert!(
                seen[0].starts_with("GET /admin?q=<b> "),
                "{}: {seen:?}",
                way.name
            ),
        }
    }
}

#[tokio::test]
async fn options_of_a_whole_server_are_for_sidecars_to_forward() {
    let request = "OPTIONS * HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";
    for way in Way::to_http1(ok("")).await {
        let answer = raw(way.address, request).await;
        match way.name {
            "outbound" | "inbound" => {
                assert_eq!(status_of(&answer), 200, "{}: {answer}", way.name);
                assert!(way.seen()[0].starts_with("OPTIONS * HTTP/1.1\r\n"));
            }
            "edge" => assert_eq!(status_of(&answer), 400, "{answer}"),
            // HTTP/2 between the proxies can say it or refuses it, but never means something else by it.
            _ => assert!(way.seen().iter().all(|seen| seen.starts_with("OPTIONS * "))),
        }
    }
}

#[tokio::test]
async fn requests_by_http2_are_judged_alike() {
    let origin = Origin::start(ok("yes")).await;
    let proxy = Proxy::edge(service(&[&origin], Policy::default()));
    let request = || Request::get("http://a.test/");
    let ask = |request: Request<()>, body| ask_http2(proxy.address(), request, body, None);
    // Answers to HEAD end with their heads, the proxy's own as well.
    for (path, status) in [("/", 200), ("/%00", 400)] {
        let head = Request::head(format!("http://a.test{path}"))
            .body(())
            .unwrap();
        let answer = ask(head, &[]).await.unwrap();
        assert_eq!(
            (answer.status, answer.body.unwrap().0.as_str()),
            (status, "")
        );
    }
    let before = origin.seen().len();
    let mut many = request();
    for number in 0..101 {
        many = many.header(format!("x-{number}"), "1");
    }
    let long = request().header("x", "v".repeat(17_000));
    for (refused, status) in [
        (many, 431),
        (long, 431),
        (request().uri("http://a.test/%00"), 400),
    ] {
        let answer = ask(refused.body(()).unwrap(), &[]).await.unwrap();
        assert_eq!(answer.status, status, "{:?}", answer.fields);
    }
    for broken in [
        request().header("content-length", "5"),
        request().header("content-length", "1"),
        request().header("transfer-encoding", "chunked"),
        request().header("connection", "x"),
        request().header("te", "gzip"),
        request().header("host", "b.test"),
    ] {
        let broken = broken.body(()).unwrap();
        let context = format!("{broken:?}");
        if let Ok(answer) = ask(broken, &["ab"]).await {
            assert_eq!(answer.status, 400, "{context}");
        }
    }
    assert_eq!(origin.seen().len(), before);
    let crumbs = request().header("cookie", "a=1").header("cookie", "b=2");
    let answer = ask(crumbs.body(()).unwrap(), &[]).await.unwrap();
    assert_eq!(answer.body.unwrap().0, "yes");
    assert_eq!(
        field(origin.seen().last().unwrap(), "cookie"),
        Some("a=1; b=2")
    );
}
