//! Who sends or reads late, and who leaves.

use std::time::Duration;

use bytes::Bytes;
use http::Response;
use meshgate_proxy::{EngineOptions, ListenerLimits, Policy};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::by_hand::{CHUNKED, Endpoint, connect, is_closed, post, read_until};
use crate::kit::{
    Origin, Proxy, endpoint, field, get, ok, service, service_of, soon, status_of, until,
};
use crate::ways::{http2_service, read_all, serve_http2};

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
