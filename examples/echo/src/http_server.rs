//! HTTP: one handler for every port, version and route.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Request, Response, StatusCode, Version};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use rand::Rng as _;

use crate::faults::{self, Series, Wanted};
use crate::grpc;
use crate::log;
use crate::options::PodContext;
use crate::reply::{self, Seen};
use crate::tls::TlsFacts;
use crate::websocket;

/// Bytes of a request's body that are read before the answer; a longer one costs the connection.
const BODY_BYTES_MAX: usize = 64 << 20;

pub(crate) type AnswerBody = UnsyncBoxBody<Bytes, Infallible>;

/// What all connections share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) context: PodContext,
    pub(crate) http_port: String,
    pub(crate) log_requests: bool,
    pub(crate) series: Mutex<Series>,
}

/// One connection.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    pub(crate) shared: Arc<Shared>,
    pub(crate) peer: SocketAddr,
    pub(crate) tls: Option<Arc<TlsFacts>>,
    pub(crate) kind: Kind,
}

/// What a port takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Any,
    /// HTTP/2 only, as echo-basic's h2c port.
    Http2,
    Grpc,
}

/// The connection is to be closed without an answer.
#[derive(Debug, thiserror::Error)]
#[error("closed on request")]
pub(crate) struct Closed;

pub(crate) async fn handle(
    connection: Connection,
    mut request: Request<Incoming>,
) -> Result<Response<AnswerBody>, Closed> {
    let is_grpc = request
        .headers()
        .get(CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
    if is_grpc || connection.kind == Kind::Grpc {
        return Ok(grpc::answer(&connection, request).await);
    }
    if connection.kind == Kind::Http2 && request.version() != Version::HTTP_2 {
        return Ok(text(StatusCode::BAD_REQUEST, "Expected h2c request"));
    }
    let path = request.uri().path().replace("//", "/");
    let query = request.uri().query().unwrap_or_default();
    let (wanted, delay) = match faults::wanted(&path, query) {
        Ok(wanted) => wanted,
        Err(message) => return Ok(problem(&message)),
    };
    if wanted == Wanted::WebSocket {
        return Ok(websocket::answer(&connection, request));
    }
    drain(request.body_mut()).await;
    tokio::time::sleep(delay).await;
    let shared = &connection.shared;
    Ok(match wanted {
        Wanted::Close => return Err(Closed),
        Wanted::Health => text(StatusCode::OK, "OK"),
        Wanted::Status(status) => text(status, ""),
        Wanted::Bytes(count) => many_bytes(count),
        Wanted::Flaky(rate) if rand::rng().random::<f64>() < rate => {
            text(StatusCode::SERVICE_UNAVAILABLE, "flaky on request")
        }
        Wanted::Retry(retry) => {
            let series = shared.series.lock();
            let fails = series.unwrap_or_else(PoisonError::into_inner).fails(&retry);
            if fails {
                tokio::time::sleep(retry.delay).await;
                text(retry.status, "failed on request")
            } else {
                echo(&connection, request)
            }
        }
        Wanted::Echo | Wanted::Flaky(_) | Wanted::WebSocket => echo(&connection, request),
    })
}

fn echo(connection: &Connection, request: Request<Incoming>) -> Response<AnswerBody> {
    let (request, _) = request.into_parts();
    if connection.shared.log_requests {
        let target = reply::target(&request);
        let peer = connection.peer;
        log::line(format_args!(
            "Echoing back request made to {target} to client ({peer})"
        ));
    }
    let seen = Seen {
        context: &connection.shared.context,
        http_port: &connection.shared.http_port,
        tls: connection.tls.as_deref(),
    };
    let mut answer = Response::new(full(reply::json(&request, &seen)));
    let headers = answer.headers_mut();
    headers.extend(reply::asked_headers(&request.headers));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let nosniff = HeaderValue::from_static("nosniff");
    headers.insert("x-content-type-options", nosniff);
    answer
}

/// Reads what is left of a body, so that the connection can be used again.
async fn drain(body: &mut Incoming) {
    let mut read = 0;
    while let Some(Ok(frame)) = body.frame().await {
        read += frame.data_ref().map_or(0, Bytes::len);
        if read > BODY_BYTES_MAX {
            return;
        }
    }
}

pub(crate) fn text(status: StatusCode, body: &'static str) -> Response<AnswerBody> {
    let mut answer = Response::new(full(body));
    *answer.status_mut() = status;
    answer
}

fn problem(message: &str) -> Response<AnswerBody> {
    let body = serde_json::json!({"message": message}).to_string();
    let mut answer = Response::new(full(body));
    *answer.status_mut() = StatusCode::BAD_REQUEST;
    let json = HeaderValue::from_static("application/json");
    answer.headers_mut().insert(CONTENT_TYPE, json);
    answer
}

pub(crate) fn full(body: impl Into<Bytes>) -> AnswerBody {
    Full::new(body.into()).boxed_unsync()
}

fn many_bytes(count: u64) -> Response<AnswerBody> {
    let mut answer = Response::new(Many { left: count }.boxed_unsync());
    let headers = answer.headers_mut();
    headers.insert(CONTENT_LENGTH, HeaderValue::from(count));
    let kind = HeaderValue::from_static("application/octet-stream");
    headers.insert(CONTENT_TYPE, kind);
    answer
}

/// A body of as many bytes as asked for, from one static block.
struct Many {
    left: u64,
}

impl Body for Many {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        static BLOCK: [u8; 16 * 1024] = [b'x'; 16 * 1024];
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let length = usize::try_from(self.left).map_or(BLOCK.len(), |left| left.min(BLOCK.len()));
        self.left -= length as u64;
        let block = Bytes::from_static(&BLOCK).slice(..length);
        Poll::Ready(Some(Ok(Frame::data(block))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
