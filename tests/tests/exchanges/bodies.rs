//! Bodies that are waited for, not wanted, or answered before their end.

use std::future::poll_fn;

use bytes::Bytes;
use http::{Method, Request, Response, Version};
use tokio::sync::mpsc;

use crate::ends::{Asking, Body, Client, Hearer, Sayer, nothing, spoken};
use crate::scene::{Scene, Way, host};

/// More than any buffer on the way.
const LENGTH: usize = 64 << 20;
const PIECE: usize = 64 << 10;

fn upload(client: &Client, length: usize) -> (Sayer, Request<Body>) {
    let (sayer, body) = spoken();
    let request = client.request(Method::PUT, "/upload");
    let request = request.header("content-length", length).body(body);
    (sayer, request.expect("a request"))
}

fn answer(status: u16, text: &'static str) -> Response<Body> {
    use http_body_util::{BodyExt as _, Full};
    let body = Full::new(Bytes::from_static(text.as_bytes())).boxed();
    let answer = Response::builder().status(status).body(body);
    answer.expect("an answer")
}

async fn answered(asking: Asking) -> (u16, Bytes) {
    let (head, mut body) = asking.answer().await;
    (head.status.as_u16(), body.rest().await)
}

/// The client says nothing before the application asks for it: hyper does so with the first look at the body.
pub(crate) async fn expectation(scene: &mut Scene, way: &Way) {
    match way.client {
        Version::HTTP_2 => expectation_http2(scene, way).await,
        _ => expectation_http1(scene, way).await,
    }
}

async fn expectation_http1(scene: &mut Scene, way: &Way) {
    let (mut client, application) = scene.meet(way).await;
    let (sayer, mut request) = upload(&client, 5);
    let (tell, mut told) = mpsc::unbounded_channel();
    hyper::ext::on_informational(&mut request, move |interim| {
        // Who no longer listens has heard enough.
        let _ = tell.send(interim.status().as_u16());
    });
    let expects = "100-continue".parse().expect("a value");
    request.headers_mut().insert("expect", expects);
    let asking = client.ask(request).await;
    let (head, mut body, answerer) = application.arrival().await.open();
    assert_eq!(head.headers["expect"], "100-continue");
    assert!(told.try_recv().is_err(), "nobody has asked for the body");
    let uploading = async {
        assert_eq!(told.recv().await, Some(100));
        sayer.say("hello").await;
    };
    let (heard, ()) = tokio::join!(body.exactly(5), uploading);
    assert_eq!(heard, "hello");
    answerer.answer(answer(201, "stored"));
    assert_eq!(answered(asking).await, (201, "stored".into()));
    assert!(told.try_recv().is_err(), "it is said once");
}

/// hyper's client hears nothing before the answer in HTTP/2.
async fn expectation_http2(scene: &mut Scene, way: &Way) {
    let wire = scene.dial(way).await;
    let application = scene.application(way);
    let (client, connection) = h2::client::handshake(wire).await.expect("HTTP/2");
    let driver = tokio::spawn(connection);
    let request = Request::put(format!("http://{}/upload", host(way)))
        .header("expect", "100-continue")
        .header("content-length", 5)
        .body(());
    let mut client = client.ready().await.expect("a connection");
    let asked = client.send_request(request.expect("a request"), false);
    let (mut response, mut send) = asked.expect("a stream");
    let (head, mut body, answerer) = application.arrival().await.open();
    assert_eq!(head.headers["expect"], "100-continue");
    let uploading = async {
        let interim = poll_fn(|cx| response.poll_informational(cx)).await;
        let interim = interim.expect("an interim answer").expect("a whole one");
        assert_eq!(interim.status(), 100);
        send.send_data("hello".into(), true).expect("sent");
    };
    let (heard, ()) = tokio::join!(body.exactly(5), uploading);
    assert_eq!(heard, "hello");
    answerer.answer(answer(201, "stored"));
    assert_eq!(response.await.expect("an answer").status(), 201);
    driver.abort();
}

/// Who is told no does not send, and nobody takes what comes next for the body.
pub(crate) async fn refused_expectation(scene: &mut Scene, way: &Way) {
    let (mut client, application) = scene.meet(way).await;
    let (sayer, mut request) = upload(&client, 5);
    let expects = "100-continue".parse().expect("a value");
    request.headers_mut().insert("expect", expects);
    let asking = client.ask(request).await;
    let (_, body, answerer) = application.arrival().await.open();
    assert!(!body.is_ended());
    answerer.answer(answer(417, "no"));
    drop(body);
    assert_eq!(answered(asking).await, (417, "no".into()));
    drop((sayer, client));
    scene.meet(way).await;
}

/// The answer comes while the client is still speaking, and is whole; what is left of the request goes nowhere.
pub(crate) async fn early_answer(scene: &mut Scene, way: &Way) {
    let (mut client, application) = scene.meet(way).await;
    let (sayer, request) = upload(&client, LENGTH);
    let asking = client.ask(request).await;
    sayer.say(vec![7; PIECE]).await;
    let (_, mut body, answerer) = application.arrival().await.open();
    assert_eq!(body.exactly(10).await, vec![7; 10]);
    answerer.answer(answer(413, "too much"));
    drop(body);
    assert_eq!(answered(asking).await, (413, "too much".into()));
    drop((sayer, client));
    scene.meet(way).await;
}

/// Request and answer at the same time, word by word, beyond either's end.
pub(crate) async fn both_at_once(scene: &mut Scene, way: &Way) {
    let (mut client, application) = scene.meet(way).await;
    let (asks, body) = spoken();
    let request = client.request(Method::POST, "/talk").body(body);
    let asking = client.ask(request.expect("a request")).await;
    let (_, mut asked, answerer) = application.arrival().await.open();
    asks.say("first").await;
    assert_eq!(asked.exactly(5).await, "first");
    let (answers, body) = spoken();
    answerer.answer(Response::new(body));
    let (_, mut heard) = asking.answer().await;
    for _ in 0..20 {
        turn(&asks, &mut asked).await;
        turn(&answers, &mut heard).await;
    }
    drop(asks);
    asked.end().await;
    turn(&answers, &mut heard).await;
    drop(answers);
    heard.end().await;
    let again = client.request(Method::GET, "/again").body(nothing());
    let asking = client.ask(again.expect("a request")).await;
    let head = application.arrival().await.succeed().await;
    assert_eq!(head.uri.path(), "/again");
    assert_eq!(answered(asking).await.0, 200);
}

async fn turn(sayer: &Sayer, hearer: &mut Hearer) {
    sayer.say("words").await;
    assert_eq!(hearer.exactly(5).await, "words");
}
