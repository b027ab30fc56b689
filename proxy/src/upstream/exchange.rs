//! One attempt: a request sent to an endpoint, and the head of its response.

use std::sync::Arc;

use http::header::HeaderValue;
use http::{Method, StatusCode, Uri};
use meshgate_codec::http1::strip_hop_by_hop;
use meshgate_codec::{Fields, Version};
use meshgate_routing::upstream::{FailureKind, Safety};

use super::Wire;
use super::connect::{Dialer, Origin};
use super::pool::StreamPlace;
use crate::body::{RequestBody, ResponseBody};
use crate::failure::{Failure, Reason, Step};
use crate::head::{Request, Response};
use crate::headers::DESTINATION;
use crate::http1::{Answer, Broken, Client};
use crate::http2;
use crate::io::Io;
use crate::service::{Gate, Pass, Picked};
use crate::worker::Tasks;

/// What one attempt sends; the head is built anew for each.
pub(crate) struct Attempt<'a> {
    pub(crate) request: &'a Request,
    pub(crate) body: RequestBody,
    pub(crate) wire: Wire,
    /// The application speaks HTTP/2 (told to the proxy beside it).
    pub(crate) http2_beyond: bool,
}

/// What lives as long as an answer's body: load on the endpoint, a place in the service's limits, in a connection.
#[derive(Debug)]
pub(crate) struct Held {
    picked: Picked,
    _place: Arc<Pass>,
    _stream: Option<StreamPlace>,
    /// Of a connection that changed its protocol; others keep theirs.
    _connection: Option<Pass>,
    tasks: Tasks,
    /// Where others wait for a connection.
    waiters: Arc<Gate>,
}

/// A response, or the agreement to change the protocol.
pub(crate) enum Upgraded {
    No(Response),
    Yes {
        head: Fields,
        upstream: Io,
        held: Box<Held>,
    },
}

/// Sends the request to the picked endpoint and waits for the head of the response. What was picked is
/// held by the response's body.
pub(crate) async fn attempt(
    dialer: Dialer<'_>,
    attempt: Attempt<'_>,
    picked: Picked,
    place: Arc<Pass>,
) -> Result<Upgraded, Failure> {
    let safety = match attempt.request.method.is_idempotent() {
        true => Safety::Idempotent,
        false => Safety::Unknown,
    };
    let held = |stream| {
        Box::new(Held {
            picked,
            _place: place,
            _stream: stream,
            _connection: None,
            tasks: dialer.connection.tasks.clone(),
            waiters: dialer.service.live().connections.clone(),
        })
    };
    match attempt.wire {
        Wire::Mesh if attempt.request.upgrade.is_some() => {
            let (io, stream) = tunnel(dialer, Inside::Http1).await?;
            let client = Client::new(io, None);
            let answer = by_http1(client, attempt, Origin::New, safety).await?;
            received_http1(answer, held(Some(stream)))
        }
        Wire::Http1 => {
            let (client, origin) = dialer.http1().await?;
            let answer = by_http1(client, attempt, origin, safety).await?;
            received_http1(answer, held(None))
        }
        Wire::Http2 | Wire::Mesh => {
            let (mut sender, place, origin) = dialer.http2(attempt.wire).await?;
            let port = dialer.picked.endpoint.address().port();
            let message = http2_message(attempt, port)?;
            let sent = sender.try_send_request(message).await;
            let response = sent.map_err(|mut error| {
                let unsent = error.take_message().is_some();
                broken(&error.into_error(), unsent, origin, safety)
            })?;
            received_http2(response, held(Some(place)))
        }
    }
}

async fn by_http1(
    client: Box<Client>,
    attempt: Attempt<'_>,
    origin: Origin,
    safety: Safety,
) -> Result<Answer, Failure> {
    let sent = client.exchange(attempt.request, attempt.body).await;
    sent.map_err(|broken| broken_http1(broken, origin, safety))
}

fn received_http1(answer: Answer, mut held: Box<Held>) -> Result<Upgraded, Failure> {
    let Answer { head, outcome } = answer;
    if head.status == StatusCode::SWITCHING_PROTOCOLS.as_u16() {
        let (upstream, place) = outcome
            .into_io()
            .ok_or_else(|| malformed("the endpoint changed the protocol too early".into()))?;
        held._connection = place;
        return Ok(Upgraded::Yes {
            head: head.fields,
            upstream,
            held,
        });
    }
    let mut fields = head.fields;
    strip_hop_by_hop(&mut fields).map_err(|error| malformed(error.to_string()))?;
    Ok(Upgraded::No(Response {
        status: status(head.status)?,
        fields,
        body: ResponseBody::http1(outcome, held),
        closes: false,
    }))
}

fn received_http2(
    response: hyper::Response<hyper::body::Incoming>,
    held: Box<Held>,
) -> Result<Upgraded, Failure> {
    let (head, incoming) = response.into_parts();
    let mut fields = http2::to_fields(&head.headers);
    strip_hop_by_hop(&mut fields).map_err(|error| malformed(error.to_string()))?;
    Ok(Upgraded::No(Response {
        status: status(head.status.as_u16())?,
        fields,
        body: ResponseBody::http2(incoming, held),
        closes: false,
    }))
}

/// A final status (RFC 9110 §15.2: 1xx are not).
fn status(code: u16) -> Result<StatusCode, Failure> {
    StatusCode::from_u16(code)
        .ok()
        .filter(|status| !status.is_informational())
        .ok_or_else(|| malformed(format!("the endpoint answered with status {code}")))
}

/// The endpoint broke the protocol.
pub(crate) fn malformed(detail: String) -> Failure {
    let retry = (FailureKind::Reset, Safety::Unknown);
    Failure::upstream(Step::Exchange, Reason::UpstreamProtocol, retry, detail)
}

fn broken_http1(broken: Broken, origin: Origin, safety: Safety) -> Failure {
    let detail = broken.why.into_owned();
    if broken.unsent {
        let retry = (FailureKind::Refused, Safety::Unprocessed);
        return Failure::upstream(Step::Exchange, Reason::UpstreamReset, retry, detail);
    }
    match broken.malformed {
        true => malformed(detail),
        false => reset(origin, safety, detail),
    }
}

/// The endpoint ended the exchange. Only a connection that waited for its next request is commonly closed without a word.
fn reset(origin: Origin, safety: Safety, detail: String) -> Failure {
    let safety = match origin {
        Origin::Reused => safety,
        Origin::New => Safety::Unknown,
    };
    let retry = (FailureKind::Reset, safety);
    Failure::upstream(Step::Exchange, Reason::UpstreamReset, retry, detail)
}

/// Why there is no response, and whether the request may be sent again.
fn broken(error: &hyper::Error, unsent: bool, origin: Origin, safety: Safety) -> Failure {
    let refused = unsent || refused_by_server(error);
    let detail = chain(error);
    if refused {
        let retry = (FailureKind::Refused, Safety::Unprocessed);
        return Failure::upstream(Step::Exchange, Reason::UpstreamReset, retry, detail);
    }
    match (error.is_parse(), h2_error(error)) {
        (true, _) => malformed(detail),
        // A word about this very stream, so the connection was not just being closed.
        (_, Some(h2)) if h2.is_reset() => reset(Origin::New, safety, detail),
        _ => reset(origin, safety, detail),
    }
}

/// REFUSED_STREAM, or a GOAWAY that says the stream was not looked at (RFC 9113 §8.7).
fn refused_by_server(error: &hyper::Error) -> bool {
    h2_error(error).is_some_and(|h2| {
        let graceful =
            h2.is_go_away() && h2.is_remote() && h2.reason() == Some(h2::Reason::NO_ERROR);
        graceful || h2.reason() == Some(h2::Reason::REFUSED_STREAM)
    })
}

/// What HTTP/2 itself says of it.
fn h2_error(error: &hyper::Error) -> Option<&h2::Error> {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if let Some(h2) = cause.downcast_ref() {
            return Some(h2);
        }
        source = cause.source();
    }
    None
}

/// An error with its causes, on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let next = cause.to_string();
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        source = cause.source();
    }
    text
}

fn http2_message(attempt: Attempt<'_>, port: u16) -> Result<hyper::Request<RequestBody>, Failure> {
    let Attempt {
        request,
        body,
        wire,
        http2_beyond,
    } = attempt;
    let mut message = hyper::Request::new(body);
    // Both are tokens of the same alphabet.
    *message.method_mut() =
        Method::from_bytes(request.method.as_str().as_bytes()).unwrap_or_default();
    *message.version_mut() = http::Version::HTTP_2;
    *message.uri_mut() = uri(&request.authority, &request.target)?;
    *message.headers_mut() = http2::to_header_map(&request.fields);
    let fields = message.headers_mut();
    if request.version == Version::Http2 && request.is_grpc() {
        fields.insert(http::header::TE, HeaderValue::from_static("trailers"));
    }
    if wire == Wire::Mesh {
        let protocol = if http2_beyond { "h2" } else { "h1" };
        if let Ok(value) = HeaderValue::from_str(&format!("{port}; {protocol}")) {
            fields.insert(DESTINATION, value);
        }
    }
    Ok(message)
}

/// The target as HTTP/2 wants it. HTTP/1 lets characters pass that are none of a URI's (RFC 3986 §2).
fn uri(authority: &str, target: &str) -> Result<Uri, Failure> {
    let authority = if authority.is_empty() {
        "localhost"
    } else {
        authority
    };
    Uri::builder()
        .scheme("http")
        .authority(authority)
        .path_and_query(target)
        .build()
        .map_err(|error| Failure::downstream(Reason::BadRequest, error.to_string()))
}

impl Held {
    /// The whole answer was read; the connection may serve again if there is one left.
    pub(crate) fn complete(self, connection: Option<Box<Client>>) {
        if let Some(client) = connection {
            let live = self.picked.endpoint.live();
            let owner = Arc::downgrade(live);
            live.pool
                .keep(client, self.tasks.worker(), owner, &self.tasks);
            self.waiters.wake_one();
        }
    }
}

/// A stream within an HTTP/2 connection to the proxy beside the endpoint, which connects it to the application's port
/// (CONNECT, RFC 9113 §8.5).
pub(crate) async fn tunnel(
    dialer: Dialer<'_>,
    inside: Inside,
) -> Result<(Io, StreamPlace), Failure> {
    let (mut sender, place, origin) = dialer.http2(Wire::Mesh).await?;
    let address = dialer.picked.endpoint.address();
    let mut message = hyper::Request::new(RequestBody::Empty);
    *message.method_mut() = Method::CONNECT;
    *message.version_mut() = http::Version::HTTP_2;
    *message.uri_mut() = Uri::builder()
        .authority(address.to_string())
        .build()
        .unwrap_or_default();
    if inside == Inside::Http1
        && let Ok(value) = HeaderValue::from_str(&format!("{}; h1", address.port()))
    {
        message.headers_mut().insert(DESTINATION, value);
    }
    let response = sender
        .send_request(message)
        .await
        .map_err(|error| broken(&error, false, origin, Safety::Unknown))?;
    if response.status() != StatusCode::OK {
        let why = response
            .headers()
            .get("meshgate-reason")
            .and_then(|reason| reason.to_str().ok())
            .unwrap_or("no reason given");
        let detail = format!(
            "{address}: the other proxy answered {}: {why}",
            response.status()
        );
        let retry = (FailureKind::Refused, Safety::Unprocessed);
        return Err(Failure::upstream(
            Step::Connect,
            Reason::UpstreamConnect,
            retry,
            detail,
        ));
    }
    let upgraded = hyper::upgrade::on(response)
        .await
        .map_err(|error| broken(&error, false, origin, Safety::Unknown))?;
    Ok((Io::tunnel(upgraded), place))
}

/// What a tunnel carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Inside {
    /// The other proxy passes bytes on.
    Bytes,
    /// The other proxy reads HTTP/1 requests from it: for changes of protocol, which HTTP/2 requests cannot carry.
    Http1,
}
