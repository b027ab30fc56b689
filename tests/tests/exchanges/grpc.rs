//! gRPC, step by step: every message is heard before the next is said.

use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, Request, Response, Version};

use crate::ends::{Answerer, Application, Asking, Body, Client, Hearer, Sayer, spoken};
use crate::scene::{Scene, Way, host};

/// A message as it is sent (length-prefixed, not compressed).
fn message(text: &str) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_u8(0);
    bytes.put_u32(text.len().try_into().expect("a short message"));
    bytes.put_slice(text.as_bytes());
    bytes.freeze()
}

fn trailers(status: &'static str) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static(status));
    trailers.insert("x-detail-bin", HeaderValue::from_static("AAECAw"));
    trailers
}

fn assert_trailers(hearer: &Hearer, status: &'static str) {
    assert_eq!(hearer.trailers, trailers(status));
}

/// A call that the application has heard of: the ends of both directions.
struct Call {
    _client: Client,
    asks: Sayer,
    asked: Hearer,
    answerer: Answerer,
    answer: Asking,
    head: http::request::Parts,
}

const TIMEOUT: &str = "4999m";

async fn call(scene: &mut Scene, way: &Way) -> Call {
    let (mut client, application) = scene.meet(way).await;
    let (asks, body) = spoken();
    let answer = begin(&mut client, body).await;
    let (head, asked, answerer) = arrive(application).await;
    Call {
        _client: client,
        asks,
        asked,
        answerer,
        answer,
        head,
    }
}

async fn begin(client: &mut Client, body: Body) -> Asking {
    let request = headed(client.request(Method::POST, "/shop.Catalog/List"));
    client.ask(request.body(body).expect("a request")).await
}

fn headed(request: http::request::Builder) -> http::request::Builder {
    request
        .header("content-type", "application/grpc+proto")
        .header("te", "trailers")
        .header("grpc-timeout", TIMEOUT)
        .header("x-token-bin", "AQIDBA")
}

async fn arrive(application: &mut Application) -> (http::request::Parts, Hearer, Answerer) {
    let (head, asked, answerer) = application.arrival().await.open();
    assert_eq!(head.version, Version::HTTP_2);
    for (name, value) in [
        ("content-type", "application/grpc+proto"),
        ("te", "trailers"),
        ("x-token-bin", "AQIDBA"),
    ] {
        assert_eq!(head.headers[name], value, "{name}");
    }
    (head, asked, answerer)
}

fn agree(answerer: Answerer) -> Sayer {
    let (answers, body) = spoken();
    let head = Response::builder().header("content-type", "application/grpc+proto");
    answerer.answer(head.body(body).expect("an answer"));
    answers
}

async fn opened(answer: Asking) -> Hearer {
    let (head, body) = answer.answer().await;
    assert_eq!(head.status, 200);
    assert_eq!(head.headers["content-type"], "application/grpc+proto");
    body
}

/// Each word is heard before the next.
async fn in_turns(sayer: &Sayer, hearer: &mut Hearer) {
    for turn in 0..20 {
        let text = format!("message {turn}");
        sayer.say(message(&text)).await;
        assert_eq!(hearer.message().await, text);
    }
}

pub(crate) async fn unary(scene: &mut Scene, way: &Way) {
    let mut call = call(scene, way).await;
    call.asks.say(message("question")).await;
    drop(call.asks);
    assert_eq!(call.asked.message().await, "question");
    call.asked.end().await;
    let answers = agree(call.answerer);
    answers.say(message("answer")).await;
    answers.end(trailers("0")).await;
    let mut heard = opened(call.answer).await;
    assert_eq!(heard.message().await, "answer");
    heard.end().await;
    assert_trailers(&heard, "0");
}

pub(crate) async fn client_stream(scene: &mut Scene, way: &Way) {
    let mut call = call(scene, way).await;
    in_turns(&call.asks, &mut call.asked).await;
    drop(call.asks);
    call.asked.end().await;
    let answers = agree(call.answerer);
    answers.say(message("all")).await;
    answers.end(trailers("0")).await;
    let mut heard = opened(call.answer).await;
    assert_eq!(heard.message().await, "all");
    heard.end().await;
    assert_trailers(&heard, "0");
}

pub(crate) async fn server_stream(scene: &mut Scene, way: &Way) {
    let mut call = call(scene, way).await;
    call.asks.say(message("all of it")).await;
    drop(call.asks);
    assert_eq!(call.asked.message().await, "all of it");
    call.asked.end().await;
    let answers = agree(call.answerer);
    let mut heard = opened(call.answer).await;
    in_turns(&answers, &mut heard).await;
    answers.end(trailers("0")).await;
    heard.end().await;
    assert_trailers(&heard, "0");
}

pub(crate) async fn both_streams(scene: &mut Scene, way: &Way) {
    let mut call = call(scene, way).await;
    // The head of the answer comes before anything was said.
    let answers = agree(call.answerer);
    let mut heard = opened(call.answer).await;
    for turn in 0..20 {
        let text = format!("turn {turn}");
        call.asks.say(message(&text)).await;
        assert_eq!(call.asked.message().await, text);
        answers.say(message(&text)).await;
        assert_eq!(heard.message().await, text);
    }
    // One direction ends, the other goes on.
    drop(call.asks);
    call.asked.end().await;
    in_turns(&answers, &mut heard).await;
    answers.end(trailers("0")).await;
    heard.end().await;
    assert_trailers(&heard, "0");
}

/// Trailers and nothing else: a head that is the end.
async fn fails(answerer: Answerer, status: &'static str) {
    let mut head = Response::new(crate::ends::nothing());
    *head.headers_mut() = trailers(status);
    let kind = HeaderValue::from_static("application/grpc+proto");
    head.headers_mut().insert("content-type", kind);
    answerer.answer(head);
}

pub(crate) async fn error(scene: &mut Scene, way: &Way) {
    let call = call(scene, way).await;
    // NOT_FOUND, with the request's body still open.
    fails(call.answerer, "5").await;
    let (head, mut body) = call.answer.answer().await;
    assert_eq!(
        (head.status.as_u16(), &head.headers["grpc-status"]),
        (200, &HeaderValue::from_static("5"))
    );
    assert_eq!(head.headers["x-detail-bin"], "AAECAw");
    body.end().await;
    drop(call.asks);
}

/// It is the application's: proxies pass it on, and its verdict back.
pub(crate) async fn deadline(scene: &mut Scene, way: &Way) {
    let mut call = call(scene, way).await;
    assert_eq!(call.head.headers["grpc-timeout"], TIMEOUT);
    let answers = agree(call.answerer);
    let mut heard = opened(call.answer).await;
    call.asks.say(message("take your time")).await;
    assert_eq!(call.asked.message().await, "take your time");
    // DEADLINE_EXCEEDED, in the middle of a stream.
    answers.say(message("so far")).await;
    answers.end(trailers("4")).await;
    assert_eq!(heard.message().await, "so far");
    heard.end().await;
    assert_trailers(&heard, "4");
}

/// The policy's patience is shorter than the client's: the answer is gRPC's all the same, and the application is let off.
pub(crate) async fn impatience(scene: &mut Scene, way: &Way) {
    let way = Way {
        service: "impatient",
        ..*way
    };
    let call = call(scene, &way).await;
    let (head, mut body) = call.answer.answer().await;
    assert_eq!(head.status, 200);
    let reason = head.headers["meshgate-reason"].to_str().expect("text");
    assert!(reason.starts_with("request-timeout"), "{reason}");
    assert_eq!(head.headers["grpc-status"], "4", "{reason}");
    body.end().await;
    call.answerer.unheard().await;
}

/// Who gives up is not worked for any longer: before the answer, and in the middle of it.
pub(crate) async fn cancellation(scene: &mut Scene, way: &Way) {
    // hyper's client gives a stream up no sooner than its request has ended.
    let (client, connection) = h2::client::handshake(scene.dial(way).await)
        .await
        .expect("HTTP/2");
    let driver = tokio::spawn(connection);
    let application = scene.application(way);
    for answers in [false, true] {
        let mut client = client.clone().ready().await.expect("a connection");
        let request = Request::post(format!("http://{}/shop.Catalog/List", host(way)));
        let request = headed(request).body(()).expect("a request");
        let (response, mut asks) = client.send_request(request, false).expect("a stream");
        let (_, mut asked, answerer) = arrive(application).await;
        asks.send_data(message("question"), false).expect("sent");
        assert_eq!(asked.message().await, "question");
        if answers {
            let answers = agree(answerer);
            let response = response.await.expect("an answer");
            asks.send_reset(h2::Reason::CANCEL);
            answers.unheard().await;
            drop(response);
        } else {
            asks.send_reset(h2::Reason::CANCEL);
            answerer.unheard().await;
        }
        // Not taken for the end of the request.
        assert!(asked.piece().await.is_err());
    }
    driver.abort();
}
