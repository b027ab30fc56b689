//! Unary gRPC over HTTP/2: `gateway_api_conformance.echo_basic.grpcecho.GrpcEcho`. One message in, one out; the framing
//! (5 bytes of head) is small enough to be written here.

use std::convert::Infallible;

use bytes::{BufMut as _, Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use prost::Message;

use crate::http_server::{AnswerBody, Connection};
use crate::log;
use crate::reply;
use crate::tls::TlsFacts;

pub(crate) const SERVICE: &str = "gateway_api_conformance.echo_basic.grpcecho.GrpcEcho";
/// The request message is empty; what is sent in its place is not looked at.
const REQUEST_BYTES_MAX: usize = 4 << 20;

const OK: u32 = 0;
const INTERNAL: u32 = 13;
const UNIMPLEMENTED: u32 = 12;

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Header {
    #[prost(string, tag = "1")]
    pub(crate) key: String,
    #[prost(string, tag = "2")]
    pub(crate) value: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Context {
    #[prost(string, tag = "1")]
    pub(crate) namespace: String,
    #[prost(string, tag = "2")]
    pub(crate) ingress: String,
    #[prost(string, tag = "3")]
    pub(crate) service_name: String,
    #[prost(string, tag = "4")]
    pub(crate) pod: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct TlsAssertions {
    #[prost(string, tag = "1")]
    pub(crate) version: String,
    #[prost(string, tag = "2")]
    pub(crate) negotiated_protocol: String,
    #[prost(string, tag = "3")]
    pub(crate) server_name: String,
    #[prost(string, tag = "4")]
    pub(crate) cipher_suite: String,
    #[prost(string, repeated, tag = "5")]
    pub(crate) peer_certificates: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Assertions {
    #[prost(string, tag = "1")]
    pub(crate) fully_qualified_method: String,
    #[prost(message, repeated, tag = "2")]
    pub(crate) headers: Vec<Header>,
    #[prost(string, tag = "3")]
    pub(crate) authority: String,
    #[prost(message, optional, tag = "4")]
    pub(crate) context: Option<Context>,
    #[prost(message, optional, tag = "5")]
    pub(crate) tls_assertions: Option<TlsAssertions>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct EchoResponse {
    #[prost(message, optional, tag = "1")]
    pub(crate) assertions: Option<Assertions>,
}

pub(crate) async fn answer(
    connection: &Connection,
    request: Request<Incoming>,
) -> Response<AnswerBody> {
    let (request, body) = request.into_parts();
    let method = request.uri.path().to_owned();
    let name = method
        .strip_prefix('/')
        .and_then(|path| path.strip_prefix(SERVICE))
        .and_then(|path| path.strip_prefix('/'));
    if !matches!(name, Some("Echo" | "EchoTwo")) {
        return finished(UNIMPLEMENTED, "unknown service or method");
    }
    let body = Limited::new(body, REQUEST_BYTES_MAX).collect().await;
    if body.is_err() {
        return finished(INTERNAL, "the request could not be read");
    }
    let encryption = if connection.tls.is_some() {
        "TLS"
    } else {
        "plaintext"
    };
    if connection.shared.log_requests {
        log::line(format_args!("Received over {encryption}: {method}"));
    }
    let authority = reply::host(&request).to_owned();
    let mut headers: Vec<Header> = request
        .headers
        .iter()
        .map(|(name, value)| Header {
            key: name.to_string(),
            value: String::from_utf8_lossy(value.as_bytes()).into_owned(),
        })
        .collect();
    headers.push(Header {
        key: ":authority".to_owned(),
        value: authority.clone(),
    });
    let context = &connection.shared.context;
    let response = EchoResponse {
        assertions: Some(Assertions {
            fully_qualified_method: method,
            headers,
            authority,
            context: Some(Context {
                namespace: context.namespace.clone(),
                ingress: context.ingress.clone(),
                service_name: context.service.clone(),
                pod: context.pod.clone(),
            }),
            tls_assertions: connection.tls.as_deref().map(TlsAssertions::of),
        }),
    };
    with_message(&response)
}

impl TlsAssertions {
    fn of(facts: &TlsFacts) -> Self {
        Self {
            version: facts.version.clone(),
            negotiated_protocol: facts.negotiated_protocol.clone(),
            server_name: facts.server_name.clone(),
            cipher_suite: facts.cipher_suite.clone(),
            peer_certificates: facts.peer_certificates.clone(),
        }
    }
}

/// A message with its head: not compressed, length.
pub(crate) fn framed(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut frame = BytesMut::with_capacity(5 + length);
    frame.put_u8(0);
    frame.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    message.encode_raw(&mut frame);
    frame.freeze()
}

fn with_message(message: &impl Message) -> Response<AnswerBody> {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from(OK));
    let frames = [Frame::data(framed(message)), Frame::trailers(trailers)];
    let frames = frames.map(Ok::<_, Infallible>);
    let body = StreamBody::new(futures::stream::iter(frames));
    let mut answer = Response::new(body.boxed_unsync());
    answer.headers_mut().insert(CONTENT_TYPE, grpc());
    answer
}

/// An answer of trailers only.
fn finished(status: u32, message: &'static str) -> Response<AnswerBody> {
    let mut answer = Response::new(crate::http_server::full(Bytes::new()));
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, grpc());
    headers.insert("grpc-status", HeaderValue::from(status));
    headers.insert("grpc-message", HeaderValue::from_static(message));
    answer
}

fn grpc() -> HeaderValue {
    HeaderValue::from_static("application/grpc")
}
