//! WebSockets: opened by HTTP/1 and by HTTP/2 (RFC 8441), with endpoints that speak either, edge and mesh.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use h2::client::SendRequest;
use h2::ext::Protocol as Opened;
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::{Method, Request, Response};
use meshgate_proxy::{EngineOptions, Policy, Protocol};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::frames::{DATA, END_HEADERS, GET, HEADERS, Heard, Peer, block, frame};
use crate::kit::{
    Origin, Proxy, endpoint, field, ok, read_message, service, service_of, soon, status_of,
};
use crate::mesh::{Mesh, Pair, strict};
use crate::ways::http2_service;

/// What an endpoint speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Speaks {
    Http1,
    /// HTTP/2 as well, and announces that it opens other protocols.
    Opens,
    /// HTTP/2 as well, without that.
    OpensNot,
}

/// An endpoint that agrees to every WebSocket and sends back what comes on it, or says no.
struct Echo {
    address: SocketAddr,
    /// How it was asked: "HTTP/1 websocket key", "HTTP/2 websocket".
    asked: Arc<Mutex<Vec<String>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Echo {
    async fn start(speaks: Speaks, agrees: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let notes = asked.clone();
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                connections.spawn(serve(stream, speaks, agrees, notes.clone()));
            }
        });
        Self {
            address,
            asked,
            task,
        }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

async fn serve(stream: TcpStream, speaks: Speaks, agrees: bool, asked: Arc<Mutex<Vec<String>>>) {
    let mut first = [0; 3];
    let is_http2 = stream.peek(&mut first).await.is_ok() && &first == b"PRI";
    match (is_http2, speaks) {
        (true, Speaks::Http1) => {
            let mut stream = stream;
            let no = "HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
            let _ = stream.write_all(no.as_bytes()).await;
        }
        (true, _) => serve_http2(stream, speaks == Speaks::Opens, agrees, asked).await,
        (false, _) => serve_http1(stream, agrees, asked).await,
    }
}

async fn serve_http1(mut stream: TcpStream, agrees: bool, asked: Arc<Mutex<Vec<String>>>) {
    let mut buffer = Vec::new();
    let Some(request) = read_message(&mut stream, &mut buffer).await else {
        return;
    };
    let named = |name| field(&request, name).unwrap_or("none");
    let key = named("sec-websocket-key");
    let note = format!("HTTP/1 {} key: {}", named("upgrade"), key.len());
    asked.lock().unwrap().push(note);
    let answer = match agrees {
        true => format!(
            "HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Protocol: chat\r\nSec-WebSocket-Accept: {}\r\n\r\n",
            derive_accept_key(key.as_bytes())
        ),
        false => "HTTP/1.1 403 X\r\nContent-Length: 7\r\n\r\nrefused".into(),
    };
    stream.write_all(answer.as_bytes()).await.unwrap();
    let (mut read, mut write) = stream.split();
    let _ = tokio::io::copy(&mut read, &mut write).await;
    let _ = write.shutdown().await;
}

async fn serve_http2(stream: TcpStream, opens: bool, agrees: bool, asked: Arc<Mutex<Vec<String>>>) {
    let mut builder = h2::server::Builder::new();
    if opens {
        builder.enable_connect_protocol();
    }
    let Ok(mut connection) = builder.handshake::<_, Bytes>(stream).await else {
        return;
    };
    let mut streams = tokio::task::JoinSet::new();
    while let Some(Ok((request, respond))) = connection.accept().await {
        let protocol = request.extensions().get::<Opened>();
        let protocol = protocol.map_or("none", |protocol| protocol.as_str());
        let key = request.headers().get("sec-websocket-key");
        let key = key.map_or("none", |key| key.to_str().unwrap());
        asked
            .lock()
            .unwrap()
            .push(format!("HTTP/2 {protocol} key: {key}"));
        assert_eq!(request.method(), Method::CONNECT);
        assert_eq!(request.uri().path(), "/chat");
        streams.spawn(agree(request, respond, agrees));
    }
}

async fn agree(request: Request<RecvStream>, mut respond: SendResponse<Bytes>, agrees: bool) {
    let head = Response::builder();
    if !agrees {
        let no = head
            .status(403)
            .header("content-length", "7")
            .body(())
            .unwrap();
        let mut send = respond.send_response(no, false).unwrap();
        let _ = send.send_data(Bytes::from_static(b"refused"), true);
        return;
    }
    // A length that means nothing.
    let yes = head.header("content-length", "3");
    let yes = yes.header("sec-websocket-protocol", "chat").body(());
    let mut send = respond.send_response(yes.unwrap(), false).unwrap();
    let mut body = request.into_body();
    while let Some(Ok(data)) = body.data().await {
        body.flow_control().release_capacity(data.len()).unwrap();
        send.send_data(data, false).unwrap();
    }
    let _ = send.send_data(Bytes::new(), true);
}

/// The key of RFC 6455 §1.3 and its answer.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// Opens a WebSocket, says something, hears it, says goodbye and hears that.
async fn converse_http1(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let ask = format!(
        "GET /chat HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    );
    stream.write_all(ask.as_bytes()).await.unwrap();
    let mut buffer = Vec::new();
    let answer = soon(read_message(&mut stream, &mut buffer)).await.unwrap();
    if status_of(&answer) != 101 {
        let body = answer.split("\r\n\r\n").nth(1).unwrap();
        return format!("{} {body}", status_of(&answer));
    }
    assert_eq!(field(&answer, "sec-websocket-accept"), Some(ACCEPT));
    assert_eq!(field(&answer, "sec-websocket-protocol"), Some("chat"));
    assert_eq!(field(&answer, "upgrade"), Some("websocket"));
    assert_eq!(field(&answer, "content-length"), None, "{answer}");
    stream.write_all(b"hello").await.unwrap();
    while buffer.len() < 5 {
        assert!(soon(stream.read_buf(&mut buffer)).await.unwrap() > 0);
    }
    stream.write_all(b" and bye").await.unwrap();
    stream.shutdown().await.unwrap();
    soon(stream.read_to_end(&mut buffer)).await.unwrap();
    String::from_utf8(buffer).unwrap()
}

async fn converse_http2(address: SocketAddr) -> String {
    let stream = TcpStream::connect(address).await.unwrap();
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    let driver = tokio::spawn(connection);
    let said = soon(converse_on(client)).await;
    driver.abort();
    said
}

async fn converse_on(client: SendRequest<Bytes>) -> String {
    let mut client = client.ready().await.unwrap();
    while !client.is_extended_connect_protocol_enabled() {
        tokio::task::yield_now().await;
    }
    let request = Request::connect("http://a.test/chat")
        .extension(Opened::from_static("websocket"))
        .header("sec-websocket-version", "13")
        .body(())
        .unwrap();
    let (answer, mut send) = client.send_request(request, false).unwrap();
    let (head, mut body) = answer.await.unwrap().into_parts();
    if head.status != 200 {
        return format!("{} {}", head.status.as_u16(), rest(&mut body).await);
    }
    assert_eq!(head.headers["sec-websocket-protocol"], "chat");
    for absent in ["sec-websocket-accept", "content-length"] {
        assert!(!head.headers.contains_key(absent), "{absent}");
    }
    say(&mut send, "hello", false);
    let hello = body.data().await.unwrap().unwrap();
    assert_eq!(hello, "hello");
    say(&mut send, " and bye", true);
    "hello".to_owned() + &rest(&mut body).await
}

fn say(send: &mut SendStream<Bytes>, text: &'static str, ends: bool) {
    send.send_data(Bytes::from_static(text.as_bytes()), ends)
        .unwrap();
}

async fn rest(body: &mut RecvStream) -> String {
    let mut all = Vec::new();
    while let Some(data) = body.data().await {
        all.extend_from_slice(&data.unwrap());
    }
    String::from_utf8(all).unwrap()
}

/// The edge, or two sidecars.
fn way(address: SocketAddr, declared: Protocol, mesh: bool) -> (SocketAddr, Vec<Proxy>) {
    if mesh {
        let pair = Pair::start_with(
            &Mesh::new(),
            (address, declared),
            "web",
            strict(),
            <[EngineOptions; 2]>::default(),
        );
        return (pair.client.address(), vec![pair.client, pair.server]);
    }
    let web = match declared {
        Protocol::Http2 => http2_service(address),
        _ => service_of(vec![endpoint(address, "pod")], Policy::default(), None),
    };
    let proxy = Proxy::edge(web);
    (proxy.address(), vec![proxy])
}

const BY_HTTP1: &str = "HTTP/1 websocket key: 24";
const BY_HTTP2: &str = "HTTP/2 websocket key: none";

/// How the endpoint is asked, whoever asks: over the edge, and over two sidecars.
async fn check(declared: Protocol, speaks: Speaks, edge: &str, mesh: [&str; 2]) {
    for (through_mesh, http2, expected) in [
        (false, false, edge),
        (false, true, edge),
        (true, false, mesh[0]),
        (true, true, mesh[1]),
    ] {
        let context =
            format!("{declared:?}, {speaks:?}, mesh: {through_mesh}, HTTP/2 client: {http2}");
        for agrees in [true, false] {
            let echo = Echo::start(speaks, agrees).await;
            let (address, _proxies) = way(echo.address, declared, through_mesh);
            // On a connection that there was before, too.
            for _ in 0..2 {
                let said = match http2 {
                    true => converse_http2(address).await,
                    false => converse_http1(address).await,
                };
                let wanted = if agrees {
                    "hello and bye"
                } else {
                    "403 refused"
                };
                assert_eq!(said, wanted, "{context}");
            }
            assert_eq!(echo.asked(), [expected; 2], "{context}");
        }
    }
}

#[tokio::test]
async fn an_endpoint_is_asked_in_what_it_speaks() {
    let (auto, http2) = (Protocol::Auto, Protocol::Http2);
    check(auto, Speaks::Http1, BY_HTTP1, [BY_HTTP1; 2]).await;
    check(auto, Speaks::OpensNot, BY_HTTP1, [BY_HTTP1; 2]).await;
    // A sidecar passes on what the client speaks.
    check(auto, Speaks::Opens, BY_HTTP1, [BY_HTTP1, BY_HTTP2]).await;
    check(http2, Speaks::Opens, BY_HTTP2, [BY_HTTP2; 2]).await;
    check(http2, Speaks::OpensNot, BY_HTTP1, [BY_HTTP1; 2]).await;
}

/// What answers a key of ours wrongly is no WebSocket's server, whatever it agrees to (RFC 6455 §4.1).
#[tokio::test]
async fn a_wrong_answer_to_our_key_fails_the_opening() {
    for accept in [
        "",
        "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n",
        "Sec-WebSocket-Accept: \r\n",
    ] {
        let origin = Origin::start(crate::kit::Act::Say(format!(
            "HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{accept}\r\n"
        )))
        .await;
        for mesh in [false, true] {
            let (address, _proxies) = way(origin.address, Protocol::Auto, mesh);
            let said = converse_http2(address).await;
            assert!(
                said.starts_with("502 upstream-protocol"),
                "{accept}: {said}"
            );
        }
    }
}

fn websocket(stream: u32) -> Vec<u8> {
    let head = GET.replace("GET", "CONNECT")
        + "|:protocol=websocket|sec-websocket-version=13|origin=http://a.test";
    frame(HEADERS, END_HEADERS, stream, &block(&head))
}

#[tokio::test]
async fn a_websocket_within_a_stream() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let web = service_of(vec![endpoint(address, "pod")], Policy::default(), None);
    let proxy = Proxy::edge(web);
    let mut client = Peer::connect(proxy.address()).await;
    loop {
        if let Heard::Settings(said) = client.hear().await {
            break assert!(said.contains(&(8, 1)), "{said:?}");
        }
    }
    // Bytes before the agreement wait for it.
    client
        .say(&[websocket(1), frame(DATA, 0, 1, b"early")].concat())
        .await;
    let (mut server, _) = soon(listener.accept()).await.unwrap();
    let mut buffer = Vec::new();
    let request = soon(read_message(&mut server, &mut buffer)).await.unwrap();
    assert!(request.starts_with("GET / HTTP/1.1\r\n"), "{request}");
    assert_eq!(field(&request, "upgrade"), Some("websocket"));
    let key = field(&request, "sec-websocket-key").unwrap();
    assert_eq!(key.len(), 24);
    let accept = derive_accept_key(key.as_bytes());
    server
        .write_all(format!("HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {accept}\r\n\r\nfirst").as_bytes())
        .await
        .unwrap();
    let Heard::Head(1, 200, fields, false) = client.next().await else {
        panic!("not agreed");
    };
    assert!(!fields.contains("accept"), "{fields}");
    assert_eq!(
        client.next().await,
        Heard::Data(1, b"first".to_vec(), false)
    );
    let mut early = [0; 5];
    soon(server.read_exact(&mut early)).await.unwrap();
    assert_eq!(&early, b"early");
    // One end says its last word, the other goes on.
    client.say(&frame(DATA, 1, 1, b"bye")).await;
    let mut bye = Vec::new();
    soon(server.read_to_end(&mut bye)).await.unwrap();
    assert_eq!(bye, b"bye");
    server.write_all(b"and you").await.unwrap();
    assert_eq!(
        client.next().await,
        Heard::Data(1, b"and you".to_vec(), false)
    );
    drop(server);
    assert_eq!(client.next().await, Heard::Data(1, vec![], true));
}

#[tokio::test]
async fn a_websocket_that_is_not_agreed_to() {
    let origin = Origin::start(ok("no")).await;
    let proxy = Proxy::edge(service(&[&origin], Policy::default()));
    let mut client = Peer::connect(proxy.address()).await;
    // Success without agreement would be taken for one.
    client.say(&websocket(1)).await;
    assert_eq!(client.answer(1).await.0, 502);
    origin.always(crate::kit::status(403, "no"));
    client.say(&websocket(3)).await;
    assert_eq!(client.answer(3).await, (403, "no".into()));
}
