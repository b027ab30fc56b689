//! One attempt: a request sent to an endpoint, and the head of its response.

use std::net::SocketAddr;
use std::sync::Arc;

use http::StatusCode;
use meshgate_codec::http1::strip_hop_by_hop;
use meshgate_codec::http2::{Code, RequestLine, Scheme};
use meshgate_codec::{Fields, Known, Method, ResponseHead, Version};
use meshgate_routing::upstream::{FailureKind, Safety};

use super::Wire;
use super::announce::Sole;
use super::connect::{Dialer, Origin};
use super::extended;
use crate::body::{RequestBody, ResponseBody};
use crate::failure::{Failure, Reason, Step};
use crate::head::{Closes, Request, Response};
use crate::http1::{Answer, Broken, Client};
use crate::http2::{self, End};
use crate::interims::Interims;
use crate::io::Io;
use crate::service::{Gate, Pass, Picked, Place};
use crate::worker::Tasks;

/// What one attempt sends; the head is built anew for each.
pub(crate) struct Attempt<'a> {
    pub(crate) request: &'a Request,
    pub(crate) body: RequestBody,
    pub(crate) wire: Wire,
    /// The application speaks HTTP/2 (told to the proxy beside it).
    pub(crate) http2_beyond: bool,
}

/// What lives as long as an answer's body: load on the endpoint, a place in the service's limits.
#[derive(Debug)]
pub(crate) struct Held {
    picked: Picked,
    _place: Arc<Place>,
    /// Of a connection that changed its protocol; others keep theirs.
    _connection: Option<Pass>,
    tasks: Tasks,
    /// Whose alone the connection is.
    sole: Option<Sole>,
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
    place: Arc<Place>,
) -> Result<Upgraded, Failure> {
    let safety = match attempt.request.method.is_idempotent() {
        true => Safety::Idempotent,
        false => Safety::Unknown,
    };
    let held = Box::new(Held {
        picked,
        _place: place,
        _connection: None,
        tasks: dialer.connection.tasks.clone(),
        sole: dialer.sole(),
        waiters: dialer.service.live().connections.clone(),
    });
    match attempt.wire {
        Wire::Mesh if attempt.request.upgrade.is_some() => {
            // Larger than what is usual, as are new connections.
            let inside = Inside::Http1 {
                http2_beyond: attempt.http2_beyond,
            };
            let client = Client::new(Box::pin(tunnel(dialer, inside)).await?, None);
            let answer = by_http1(client, attempt, Origin::New, safety).await?;
            received_http1(answer, held)
        }
        Wire::Http2 if attempt.request.upgrade.is_some() => {
            match Box::pin(extended::offered(dialer, attempt.request)).await? {
                Some(offer) => Box::pin(extended::open(offer, attempt.request, safety, held)).await,
                // Many who speak HTTP/2 speak HTTP/1 as well.
                None => over_http1(dialer, attempt, safety, held).await,
            }
        }
        Wire::Http1 => over_http1(dialer, attempt, safety, held).await,
        Wire::Http2 | Wire::Mesh => {
            let (client, origin) = dialer.http2(attempt.wire).await?;
            let port = dialer.picked.endpoint.address().port();
            let scheme = dialer.scheme(attempt.wire);
            let answer = by_http2(client, attempt, (scheme, port)).await;
            let answer = answer.map_err(|broken| broken_http2(broken, origin, safety))?;
            received_http2(answer, held)
        }
    }
}

async fn over_http1(
    dialer: Dialer<'_>,
    attempt: Attempt<'_>,
    safety: Safety,
    held: Box<Held>,
) -> Result<Upgraded, Failure> {
    let (client, origin) = dialer.http1().await?;
    let answer = by_http1(client, attempt, origin, safety).await?;
    received_http1(answer, held)
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
        closes: Closes::Nothing,
    }))
}

async fn by_http2(
    client: http2::Client,
    attempt: Attempt<'_>,
    (scheme, port): (Scheme, u16),
) -> Result<http2::Answer, http2::Broken> {
    let Attempt {
        request,
        body,
        wire,
        http2_beyond,
    } = attempt;
    let line = RequestLine {
        method: &request.method,
        scheme,
        authority: match &*request.authority {
            "" => "localhost",
            authority => authority,
        },
        path: &request.target,
        protocol: None,
    };
    let destination = match wire {
        Wire::Mesh if http2_beyond => format!("{port}; h2"),
        Wire::Mesh => format!("{port}; h1"),
        Wire::Http1 | Wire::Http2 => String::new(),
    };
    let trailers = (Known::Te, &b"trailers"[..]);
    let more = [(Known::MeshgateDest, destination.as_bytes()), trailers];
    let asks_for_trailers = request.version == Version::Http2 && request.is_grpc();
    let asked = http2::Asked {
        line,
        fields: &request.fields,
        more: match (destination.is_empty(), asks_for_trailers) {
            (true, true) => &more[1..],
            (true, false) => &[],
            (false, true) => &more,
            (false, false) => &more[..1],
        },
        interims: &request.interims,
    };
    client.exchange(asked, body).await
}

pub(super) fn received_http2(answer: http2::Answer, held: Box<Held>) -> Result<Upgraded, Failure> {
    let http2::Answer { head, outcome } = answer;
    Ok(Upgraded::No(Response {
        status: status(head.status)?,
        fields: head.fields,
        body: ResponseBody::http2(outcome, held),
        closes: Closes::Nothing,
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

pub(super) fn broken_http2(broken: http2::Broken, origin: Origin, safety: Safety) -> Failure {
    let refused = |detail| {
        let retry = (FailureKind::Refused, Safety::Unprocessed);
        Failure::upstream(Step::Exchange, Reason::UpstreamReset, retry, detail)
    };
    let (end, unsent) = match broken {
        http2::Broken::Full => return refused("the endpoint takes no further stream".into()),
        // The client's side is asked for its own reason.
        http2::Broken::Body(error) => return reset(Origin::New, safety, error.to_string()),
        http2::Broken::Ended { end, unsent } => (end, unsent),
    };
    let detail = end.to_string();
    match end {
        // RFC 9113 §8.7: the stream was not looked at.
        End::Unseen | End::Reset(Code::REFUSED_STREAM) => refused(detail),
        _ if unsent => refused(detail),
        End::Malformed(_) => malformed(detail),
        // A word about this very stream, so the connection was not just being closed.
        End::Reset(_) => reset(Origin::New, safety, detail),
        End::Lost(_) => reset(origin, safety, detail),
    }
}

impl Held {
    /// The whole answer was read; the connection may serve again if there is one left.
    pub(crate) fn complete(self, connection: Option<Box<Client>>) {
        if let Some(client) = connection {
            let live = self.picked.endpoint.live();
            let owner = Arc::downgrade(live);
            let whose = (self.tasks.worker(), self.sole);
            live.pool.keep(client, whose, owner, &self.tasks);
            self.waiters.wake_one();
        }
    }
}

/// A stream within an HTTP/2 connection to the proxy beside the endpoint, which connects it to the application's port
/// (CONNECT, RFC 9113 §8.5).
pub(crate) async fn tunnel(dialer: Dialer<'_>, inside: Inside) -> Result<Io, Failure> {
    let (client, origin) = dialer.http2(Wire::Mesh).await?;
    let address = dialer.picked.endpoint.address();
    let line = RequestLine {
        method: &Method::Connect,
        scheme: Scheme::Http,
        authority: &address.to_string(),
        path: "",
        protocol: None,
    };
    let beyond = match inside {
        Inside::Http1 { http2_beyond: true } => "h2",
        Inside::Http1 { .. } | Inside::Bytes => "h1",
    };
    let destination = format!("{}; {beyond}", address.port());
    let more = [(Known::MeshgateDest, destination.as_bytes())];
    let asked = http2::Asked {
        line,
        fields: &Fields::default(),
        more: match inside {
            Inside::Bytes => &[],
            Inside::Http1 { .. } => &more,
        },
        interims: &Interims::Nowhere,
    };
    let opened = client.tunnel(asked).await;
    match opened.map_err(|broken| broken_http2(broken, origin, Safety::Unknown))? {
        (_, Some(tunnel)) => Ok(tunnel.into()),
        (head, None) => Err(untunnelled(address, &head)),
    }
}

fn untunnelled(address: SocketAddr, head: &ResponseHead) -> Failure {
    let reason = head.fields.get(Known::MeshgateReason);
    let reason = reason.and_then(|reason| std::str::from_utf8(reason).ok());
    let why = reason.unwrap_or("no reason given");
    let detail = format!("{address}: the other proxy answered {}: {why}", head.status);
    let retry = (FailureKind::Refused, Safety::Unprocessed);
    Failure::upstream(Step::Connect, Reason::UpstreamConnect, retry, detail)
}

/// What a tunnel carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Inside {
    /// The other proxy passes bytes on.
    Bytes,
    /// The other proxy reads HTTP/1 requests from it: for changes of protocol, which HTTP/2 requests cannot carry.
    Http1 {
        /// The application speaks HTTP/2.
        http2_beyond: bool,
    },
}
