//! WebSockets, opened by an HTTP/1 upgrade or by HTTP/2's extended CONNECT (RFC 8441).

use futures::{SinkExt as _, StreamExt as _};
use http::{Method, Request, Response, StatusCode, Version};
use hyper::ext::Protocol;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::ends::{Body, Client, nothing};
use crate::scene::{Scene, Way};

/// The request, and the answer that its key wants.
fn ask(client: &Client) -> (Request<Body>, Option<String>) {
    let version = ("sec-websocket-version", "13");
    if client.version() == Version::HTTP_2 {
        let request = client.request(Method::CONNECT, "/chat");
        let request = request.extension(Protocol::from_static("websocket"));
        let request = request.header(version.0, version.1).body(nothing());
        return (request.expect("a request"), None);
    }
    let key = generate_key();
    let request = client
        .request(Method::GET, "/chat")
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-key", &key)
        .header(version.0, version.1)
        .body(nothing());
    (
        request.expect("a request"),
        Some(derive_accept_key(key.as_bytes())),
    )
}

/// What the application says to a request that it understands.
fn agree(request: &Request<hyper::body::Incoming>) -> Response<Body> {
    let head = Response::builder();
    let named = |name: &str| request.headers().get(name).map(|value| value.as_bytes());
    let head = match request.version() {
        Version::HTTP_2 => {
            let protocol = request.extensions().get::<Protocol>();
            assert_eq!(protocol.map(Protocol::as_str), Some("websocket"));
            assert_eq!(named("sec-websocket-key"), None);
            head
        }
        _ => {
            assert_eq!(named("upgrade"), Some(&b"websocket"[..]));
            let key = named("sec-websocket-key").expect("a key");
            head.status(StatusCode::SWITCHING_PROTOCOLS)
                .header("connection", "Upgrade")
                .header("upgrade", "websocket")
                .header("sec-websocket-accept", derive_accept_key(key))
        }
    };
    head.body(nothing()).expect("an answer")
}

type Socket = WebSocketStream<TokioIo<Upgraded>>;

async fn open(scene: &mut Scene, way: &Way) -> (Client, Socket, Socket) {
    let (mut client, application) = scene.meet(way).await;
    let (request, accept) = ask(&client);
    let asking = client.ask(request).await;
    let mut arrival = application.arrival().await;
    assert_eq!(arrival.request.version(), way.application);
    assert_eq!(arrival.request.uri().path(), "/chat");
    let answer = agree(&arrival.request);
    let upgraded = hyper::upgrade::on(&mut arrival.request);
    let (_, _, answerer) = arrival.open();
    answerer.answer(answer);
    let response = asking.response().await;
    let status = if accept.is_some() { 101 } else { 200 };
    assert_eq!(response.status(), status);
    let said = response.headers().get("sec-websocket-accept");
    let said = said.map(|accept| accept.to_str().expect("text").to_owned());
    assert_eq!(said, accept);
    let near = hyper::upgrade::on(response).await.expect("the near end");
    let far = upgraded.await.expect("the far end");
    let near = WebSocketStream::from_raw_socket(TokioIo::new(near), Role::Client, None).await;
    let far = WebSocketStream::from_raw_socket(TokioIo::new(far), Role::Server, None).await;
    (client, near, far)
}

/// Messages in turns, a large one each way at once, a ping, and a farewell that both hear.
pub(crate) async fn conversation(scene: &mut Scene, way: &Way) {
    let (_client, mut near, mut far) = open(scene, way).await;
    for turn in 0..20 {
        let said = Message::text(format!("turn {turn}"));
        near.send(said.clone()).await.expect("sent");
        assert_eq!(next(&mut far).await, said);
        far.send(said.clone()).await.expect("sent");
        assert_eq!(next(&mut near).await, said);
    }
    let large = Message::binary(vec![7; 4 << 20]);
    let both = |mut socket: Socket| {
        let large = large.clone();
        async move {
            let (mut send, mut receive) = (&mut socket).split();
            let (sent, received) = tokio::join!(send.send(large), receive.next());
            sent.expect("sent");
            let received = received.expect("a message").expect("whole");
            drop((send, receive));
            (socket, received)
        }
    };
    let (mut near, mut far) = {
        let ((near, a), (far, b)) = tokio::join!(both(near), both(far));
        assert!(a == large && b == large, "the large ones are not the same");
        (near, far)
    };
    near.send(Message::Ping("still on".into()))
        .await
        .expect("sent");
    assert_eq!(next(&mut far).await, Message::Ping("still on".into()));
    far.flush().await.expect("the pong, sent");
    assert_eq!(next(&mut near).await, Message::Pong("still on".into()));
    near.close(None).await.expect("a farewell");
    assert!(next(&mut far).await.is_close());
    // The library answers it on the next look, and then both are done.
    assert!(far.next().await.is_none_or(|end| end.is_err()));
    assert!(next(&mut near).await.is_close());
    drop(far);
    assert!(near.next().await.is_none());
}

async fn next(socket: &mut Socket) -> Message {
    socket.next().await.expect("a message").expect("whole")
}

/// An application that does not agree says so itself.
pub(crate) async fn refusal(scene: &mut Scene, way: &Way) {
    let (mut client, application) = scene.meet(way).await;
    let asking = client.ask(ask(&client).0).await;
    let (_, _, answerer) = application.arrival().await.open();
    let (sayer, body) = crate::ends::spoken();
    let no = Response::builder().status(403).body(body);
    answerer.answer(no.expect("an answer"));
    sayer.say("not for you").await;
    drop(sayer);
    let (head, mut body) = asking.answer().await;
    assert_eq!(head.status, 403);
    assert_eq!(body.rest().await, "not for you");
}
