//! Changes of protocol: agreed by the endpoint, or not at all.

use meshgate_proxy::Policy;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::kit::{
    Act, Origin, Proxy, endpoint, field, get, ok, raw, read_message, service, service_of, soon,
    status_of,
};
use crate::ways::Way;

const ASK: &str = "GET /chat HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: abc\r\nSec-WebSocket-Version: 13\r\n\r\n";

/// An endpoint that agrees, then sends every byte back.
async fn echo() -> (std::net::SocketAddr, tokio::task::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut buffer = Vec::new();
        let request = read_message(&mut stream, &mut buffer).await.unwrap();
        stream
            .write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: xyz\r\n\r\n")
            .await
            .unwrap();
        let (mut read, mut write) = stream.split();
        tokio::io::copy(&mut read, &mut write).await.unwrap();
        request
    });
    (address, task)
}

#[tokio::test]
async fn a_websocket_passes_both_ways() {
    let (address, origin) = echo().await;
    let web = service_of(vec![endpoint(address, "pod")], Policy::default(), None);
    let proxy = Proxy::edge(web);
    let mut client = TcpStream::connect(proxy.address()).await.unwrap();
    // Bytes before the agreement wait for it.
    client
        .write_all(format!("{ASK}early").as_bytes())
        .await
        .unwrap();
    let mut buffer = Vec::new();
    let answer = soon(read_message(&mut client, &mut buffer)).await.unwrap();
    assert_eq!(status_of(&answer), 101, "{answer}");
    assert_eq!(field(&answer, "upgrade"), Some("websocket"));
    assert_eq!(field(&answer, "sec-websocket-accept"), Some("xyz"));
    client.write_all(b" and late").await.unwrap();
    let expected = b"early and late";
    while buffer.len() < expected.len() {
        soon(client.read_buf(&mut buffer)).await.unwrap();
    }
    assert_eq!(buffer, expected);
    client.shutdown().await.unwrap();
    let request = soon(origin).await.unwrap();
    assert_eq!(field(&request, "connection"), Some("upgrade"));
    assert_eq!(field(&request, "upgrade"), Some("websocket"));
}

#[tokio::test]
async fn an_endpoint_that_does_not_agree_answers_as_usual() {
    let origin = Origin::start(ok("no")).await;
    let proxy = Proxy::edge(service(&[&origin], Policy::default()));
    let mut client = TcpStream::connect(proxy.address()).await.unwrap();
    let mut buffer = Vec::new();
    for _ in 0..2 {
        client.write_all(ASK.as_bytes()).await.unwrap();
        let answer = soon(read_message(&mut client, &mut buffer)).await.unwrap();
        assert!(answer.ends_with("no"), "{answer}");
    }
}

#[tokio::test]
async fn an_unasked_change_is_an_error() {
    let origin = Origin::start(crate::kit::Act::Say(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n".into(),
    ))
    .await;
    let proxy = Proxy::edge(service(&[&origin], Policy::default()));
    let answer = proxy.get("/").await;
    assert_eq!(status_of(&answer), 502, "{answer}");
}

#[tokio::test]
async fn h2c_by_upgrade_is_refused_but_served() {
    let origin = Origin::start(ok("plain")).await;
    let proxy = Proxy::edge(service(&[&origin], Policy::default()));
    let answer = proxy
        .raw("GET / HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n")
        .await;
    assert_eq!(status_of(&answer), 200, "{answer}");
    assert_eq!(field(&origin.seen()[0], "upgrade"), None);
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
