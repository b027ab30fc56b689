//! One attempt: a request sent to an endpoint, and the head of its response.

use std::sync::Arc;

use http::header::{self, HeaderValue};
use http::{HeaderMap, Method, StatusCode, Uri};
use hyper::client::conn::http1;
use meshgate_routing::upstream::{FailureKind, Safety};

use super::Wire;
use super::connect::{Dialer, Origin};
use super::pool::StreamPlace;
use crate::body::{Replay, RequestBody, ResponseBody};
use crate::failure::{Failure, Reason, Step};
use crate::head::{Request, Response, Version};
use crate::headers::{self, DESTINATION};
use crate::io::Io;
use crate::reply::is_idempotent;
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

/// What lives as long as an answer's body: load on the endpoint, a place in the service's limits, the connection.
#[derive(Debug)]
pub(crate) struct Held {
    picked: Picked,
    _place: Arc<Pass>,
    wire: Place,
    request_body: Option<Replay>,
    tasks: Tasks,
    /// Where others wait for a connection.
    waiters: Arc<Gate>,
}

#[derive(Debug)]
enum Place {
    /// To be kept when the exchange is complete.
    Http1(Option<http1::SendRequest<RequestBody>>),
    Http2 {
        _place: StreamPlace,
    },
}

/// A response, or the agreement to change the protocol.
pub(crate) enum Upgraded {
    No(Response),
    /// The endpoint agreed; its bytes come once this is resolved.
    Yes {
        headers: HeaderMap,
        upstream: hyper::upgrade::OnUpgrade,
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
    let replay = attempt.body.replay();
    let safety = match is_idempotent(&attempt.request.method) {
        true => Safety::Idempotent,
        false => Safety::Unknown,
    };
    let tasks = dialer.connection.tasks.clone();
    let (response, wire_place) = match attempt.wire {
        Wire::Mesh if attempt.request.upgrade.is_some() => {
            let (io, stream) = tunnel(dialer, Inside::Http1).await?;
            let mut sender = dialer.http1_over(io).await?;
            let sent = sender.send_request(http1_message(attempt)).await;
            let response = sent.map_err(|error| broken(&error, false, Origin::New, safety))?;
            (response, Place::Http2 { _place: stream })
        }
        Wire::Http1 => {
            let (mut sender, origin) = dialer.http1().await?;
            let message = http1_message(attempt);
            let sent = sender.try_send_request(message).await;
            let response = sent.map_err(|mut error| {
                let unsent = error.take_message().is_some();
                broken(&error.into_error(), unsent, origin, safety)
            })?;
            (response, Place::Http1(Some(sender)))
        }
        Wire::Http2 | Wire::Mesh => {
            let (mut sender, place, origin) = dialer.http2(attempt.wire).await?;
            let port = dialer.picked.endpoint.address().port();
            let message = http2_message(attempt, port);
            let sent = sender.try_send_request(message).await;
            let response = sent.map_err(|mut error| {
                let unsent = error.take_message().is_some();
                broken(&error.into_error(), unsent, origin, safety)
            })?;
            (response, Place::Http2 { _place: place })
        }
    };
    let held = Box::new(Held {
        picked,
        _place: place,
        wire: wire_place,
        request_body: replay,
        tasks,
        waiters: dialer.service.live().connections.clone(),
    });
    Ok(received(response, held))
}

/// Turns the library's response into ours.
fn received(mut response: hyper::Response<hyper::body::Incoming>, held: Box<Held>) -> Upgraded {
    let tunnel = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    if tunnel {
        let upstream = hyper::upgrade::on(&mut response);
        return Upgraded::Yes {
            headers: std::mem::take(response.headers_mut()),
            upstream,
            held,
        };
    }
    let (head, incoming) = response.into_parts();
    let mut held = held;
    if headers::has_token(&head.headers, header::CONNECTION, "close")
        || head.version == http::Version::HTTP_10
    {
        held.wire.give_up();
    }
    let mut fields = head.headers;
    headers::strip_hop_by_hop(&mut fields);
    Upgraded::No(Response {
        status: head.status,
        headers: fields,
        body: ResponseBody::upstream(incoming, held),
    })
}

/// Why there is no response, and whether the request may be sent again.
fn broken(error: &hyper::Error, unsent: bool, origin: Origin, safety: Safety) -> Failure {
    let refused = unsent || refused_by_server(error);
    let detail = chain(error);
    if refused {
        let retry = (FailureKind::Refused, Safety::Unprocessed);
        return Failure::upstream(Step::Exchange, Reason::UpstreamReset, retry, detail);
    }
    if error.is_parse() {
        let retry = (FailureKind::Reset, Safety::Unknown);
        return Failure::upstream(Step::Exchange, Reason::UpstreamProtocol, retry, detail);
    }
    // Only a connection that waited for its next request is commonly closed without a word.
    let safety = match origin {
        Origin::Reused => safety,
        Origin::New => Safety::Unknown,
    };
    let retry = (FailureKind::Reset, safety);
    Failure::upstream(Step::Exchange, Reason::UpstreamReset, retry, detail)
}

/// REFUSED_STREAM, or a GOAWAY that says the stream was not looked at (RFC 9113 §8.7).
fn refused_by_server(error: &hyper::Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if let Some(h2) = cause.downcast_ref::<h2::Error>() {
            let graceful =
                h2.is_go_away() && h2.is_remote() && h2.reason() == Some(h2::Reason::NO_ERROR);
            return graceful || h2.reason() == Some(h2::Reason::REFUSED_STREAM);
        }
        source = cause.source();
    }
    false
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

fn http1_message(attempt: Attempt<'_>) -> hyper::Request<RequestBody> {
    let Attempt { request, body, .. } = attempt;
    let mut message = hyper::Request::new(body);
    *message.method_mut() = request.method.clone();
    *message.uri_mut() = uri(None, &request.target);
    *message.headers_mut() = request.headers.clone();
    let fields = message.headers_mut();
    match HeaderValue::from_str(&request.authority) {
        Ok(host) if !request.authority.is_empty() => fields.insert(header::HOST, host),
        _ => fields.insert(header::HOST, HeaderValue::from_static("")),
    };
    join_cookies(fields);
    if let Some(upgrade) = &request.upgrade {
        fields.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        fields.insert(header::UPGRADE, upgrade.protocol.clone());
    }
    message
}

fn http2_message(attempt: Attempt<'_>, port: u16) -> hyper::Request<RequestBody> {
    let Attempt {
        request,
        body,
        wire,
        http2_beyond,
    } = attempt;
    let mut message = hyper::Request::new(body);
    *message.method_mut() = request.method.clone();
    *message.version_mut() = http::Version::HTTP_2;
    *message.uri_mut() = uri(Some(&request.authority), &request.target);
    *message.headers_mut() = request.headers.clone();
    let fields = message.headers_mut();
    fields.remove(header::HOST);
    if request.version == Version::Http2 && request.is_grpc() {
        fields.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    if wire == Wire::Mesh {
        let protocol = if http2_beyond { "h2" } else { "h1" };
        if let Ok(value) = HeaderValue::from_str(&format!("{port}; {protocol}")) {
            fields.insert(&DESTINATION, value);
        }
    }
    message
}

/// The target in origin form, or with an authority as HTTP/2 wants it. The parts were validated when they came in.
fn uri(authority: Option<&str>, target: &str) -> Uri {
    let build = match authority {
        Some(authority) if !authority.is_empty() => Uri::builder()
            .scheme("http")
            .authority(authority)
            .path_and_query(target)
            .build(),
        Some(_) => Uri::builder()
            .scheme("http")
            .authority("localhost")
            .path_and_query(target)
            .build(),
        None => Uri::builder().path_and_query(target).build(),
    };
    build.unwrap_or_default()
}

/// HTTP/2 may split Cookie into crumbs; HTTP/1 has one line (RFC 9113 §8.2.3).
fn join_cookies(fields: &mut HeaderMap) {
    if fields.get_all(header::COOKIE).iter().nth(1).is_none() {
        return;
    }
    let crumbs: Vec<&[u8]> = fields
        .get_all(header::COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    if let Ok(joined) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])) {
        fields.insert(header::COOKIE, joined);
    }
}

impl Place {
    /// The connection will not be used again.
    fn give_up(&mut self) {
        if let Self::Http1(sender) = self {
            *sender = None;
        }
    }
}

impl Held {
    /// The whole answer was read: the connection may serve again, unless the request is still being sent on it.
    pub(crate) fn complete(mut self) {
        let request_sent = self.request_body.as_ref().is_none_or(Replay::ended);
        if let Place::Http1(sender) = &mut self.wire
            && request_sent
            && let Some(sender) = sender.take()
        {
            let live = self.picked.endpoint.live();
            let owner = Arc::downgrade(live);
            live.pool
                .keep(sender, self.tasks.worker(), owner, &self.tasks);
            self.waiters.wake_one();
        }
    }

    /// The answer ended early: nothing of this connection is used again.
    pub(crate) fn cut(mut self) {
        self.wire.give_up();
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
        message.headers_mut().insert(&DESTINATION, value);
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
