//! The method Echo of the gRPC echo service, over plaintext HTTP/2.

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message as _;

use super::connect::Target;
use super::{ANSWER_BYTES_MAX, Answer, CallFailed, CallOptions};
use crate::grpc::{EchoResponse, SERVICE};

/// An empty message: not compressed, length 0.
const EMPTY: [u8; 5] = [0; 5];

pub(super) async fn call(target: &Target, options: &CallOptions) -> Result<Answer, CallFailed> {
    let stream = TokioIo::new(target.connect().await?);
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), stream)
        .await
        .map_err(CallFailed::Http)?;
    // Ends when the sender is dropped; its errors reach the sender.
    tokio::spawn(connection);
    let authority = options.url.trim_start_matches("grpc://");
    let authority = authority.split('/').next().unwrap_or_default();
    let mut request = Request::post(format!("http://{authority}/{SERVICE}/Echo"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    for (name, value) in &options.headers {
        request = request.header(name, value);
    }
    let request = request
        .body(Full::new(Bytes::from_static(&EMPTY)))
        .map_err(CallFailed::Request)?;
    let answer = sender
        .send_request(request)
        .await
        .map_err(CallFailed::Http)?;
    let (head, body) = answer.into_parts();
    let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
    let body = body.map_err(CallFailed::Body)?;
    let trailers = body.trailers().cloned().unwrap_or_default();
    let status = trailers
        .get("grpc-status")
        .or(head.headers.get("grpc-status"));
    let status = status
        .and_then(|status| status.to_str().ok())
        .unwrap_or("missing");
    let status = status.to_owned();
    let body = body.to_bytes();
    let text = match body.get(EMPTY.len()..) {
        None => String::new(),
        Some(message) => {
            let response = EchoResponse::decode(message).map_err(|_| CallFailed::Message)?;
            describe(&response)
        }
    };
    Ok(Answer {
        success: status == "0",
        status: format!("{} grpc-status {status}", head.status),
        body: text.into_bytes(),
    })
}

/// The response as `name: value` lines.
fn describe(response: &EchoResponse) -> String {
    let assertions = response.assertions.clone().unwrap_or_default();
    let context = assertions.context.unwrap_or_default();
    let mut text = format!(
        "method: {}\nauthority: {}\nnamespace: {}\npod: {}\n",
        assertions.fully_qualified_method, assertions.authority, context.namespace, context.pod
    );
    for header in &assertions.headers {
        text.push_str(&format!("{}: {}\n", header.key, header.value));
    }
    text
}
