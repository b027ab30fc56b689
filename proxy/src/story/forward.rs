//! The last steps: pick an endpoint and exchange, as often as policy and budget allow.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::StatusCode;
use meshgate_codec::http1::strip_hop_by_hop;
use meshgate_codec::{Fields, Known, Version};
use meshgate_routing::Time;
use meshgate_routing::upstream::breaker::Change;
use meshgate_routing::upstream::{FailureKind, Safety};

use super::{Affinity, Answer, Route};
use crate::body::{BodyError, Replay, RequestBody, ResponseBody};
use crate::clock::{self, Moment, chance, now};
use crate::deadline::Deadline;
use crate::failure::{Failure, Reason, Retry, Side, Step};
use crate::head::{Closes, Request, Response, Switch};
use crate::record::Exchange;
use crate::serve::{Connection, Direction};
use crate::service::{Endpoint, GateRefusal, NoPick, Picked, Place, Service, Share};
use crate::spare;
use crate::upstream::{self, Attempt, Dialer, Upgraded, Wire};
use crate::websocket;

/// The code of UNAVAILABLE, in which a proxy answers gRPC that it reached nobody.
const GRPC_UNAVAILABLE: u8 = 14;

/// At the edge even a service without a timeout of its own has one, so that nobody's connection hangs for ever.
const EDGE_REQUEST_TIMEOUT: Duration = Duration::from_secs(300);

pub(super) async fn forward(
    connection: &Arc<Connection>,
    route: &Route,
    request: &mut Request,
    exchange: &mut Exchange,
    (begun, deadline): (Moment, &mut Deadline),
) -> Result<Answer, Failure> {
    let policy = route.service.policy();
    let (place, begun) = enter(connection, &route.service, begun).await?;
    route.service.live().count_request(begun.time);
    let affinity = Affinity::of(connection, request, policy.hash_on.as_ref());
    let patience = match connection.direction {
        Direction::Edge => policy.request_timeout.or(Some(EDGE_REQUEST_TIMEOUT)),
        Direction::Outbound | Direction::Inbound => policy.request_timeout,
    };
    let mut under_way = None;
    let answer = {
        let attempts = attempts(
            connection,
            (route, &affinity),
            request,
            (exchange, &mut under_way),
            (Arc::new(place), begun.time),
        );
        let attempts = pin!(attempts);
        match patience {
            Some(patience) => deadline
                .within(begun.instant, patience, attempts)
                .await
                .ok_or(patience),
            None => Ok(attempts.await),
        }
    };
    let answer = answer.unwrap_or_else(|patience| {
        let failure = Err(took_too_long(Reason::RequestTimeout, patience));
        if let Some(meeting) = &under_way {
            report(connection, route, meeting, &failure);
        }
        failure
    });
    let proof = proof(request);
    let upgrade = request.upgrade.take();
    spare::give_fields(std::mem::take(&mut request.fields));
    match answer? {
        // In HTTP/2, success would be the agreement (RFC 8441 §5).
        Upgraded::No(response)
            if upgrade.is_some()
                && request.version == Version::Http2
                && response.status.is_success() =>
        {
            let why = "the endpoint did not agree to change the protocol";
            Err(upstream::malformed(why.into()))
        }
        Upgraded::No(mut response) => {
            if connection.direction == Direction::Inbound {
                // What it says is this proxy's word, and the application's only if it passes on another proxy's.
                response.fields.remove(Known::MeshgateReason);
            }
            affinity.introduce(&mut response.fields);
            Ok(Answer::Response(response))
        }
        Upgraded::Yes {
            head,
            upstream,
            held,
        } => match upgrade {
            Some(protocol) => {
                let idle = policy.idle_timeout;
                let (mut response, protocol) = agreement(head, protocol, proof)?;
                affinity.introduce(&mut response.fields);
                let switch = Switch {
                    protocol,
                    upstream,
                    idle,
                    held,
                };
                Ok(Answer::Switch(response, Box::new(switch)))
            }
            None => Err(Failure::new(
                Side::Upstream,
                Step::Exchange,
                Reason::UpstreamProtocol,
                "the endpoint changed the protocol unasked",
            )),
        },
    }
}

/// A place among the service's requests, and since when the endpoints' time counts: not while waiting in line.
async fn enter(
    connection: &Connection,
    service: &Service,
    begun: Moment,
) -> Result<(Place, Moment), Failure> {
    let limits = &service.policy().limits;
    let gate = &service.live().requests;
    let share = Share::of(connection.client_load.as_ref(), limits);
    if let Some(pass) = gate.try_enter(share.places) {
        return Ok((Place::new(pass, share), begun));
    }
    if share.is_spent {
        return Err(upstream::overload("requests", GateRefusal::ShareSpent));
    }
    // Rare, and much larger than what is usual.
    let entered =
        Box::pin(gate.enter(limits.requests, limits.pending, limits.pending_timeout)).await;
    let pass = entered.map_err(|refusal| upstream::overload("requests", refusal))?;
    Ok((Place::new(pass, share), clock::moment()))
}

/// What an endpoint must say to a key that was made up in the client's place: nobody else looks (RFC 6455 §4.1).
fn proof(request: &Request) -> Option<String> {
    let is_ours =
        request.version == Version::Http2 && request.upgrade.as_deref() == Some(websocket::NAME);
    is_ours
        .then(|| request.fields.get(websocket::KEY))
        .flatten()
        .map(websocket::accept)
}

/// What the client is told when the endpoint changes the protocol.
fn agreement(
    mut fields: Fields,
    asked: Box<str>,
    proof: Option<String>,
) -> Result<(Response, Box<str>), Failure> {
    let proves = |proof: String| fields.all(websocket::ACCEPT).eq([proof.as_bytes()]);
    if !proof.is_none_or(proves) {
        let why = "the endpoint's Sec-WebSocket-Accept does not answer the key";
        return Err(upstream::malformed(why.into()));
    }
    let protocol = match fields.get(Known::Upgrade) {
        Some(said) => chosen(&asked, said).ok_or_else(|| {
            upstream::malformed("the endpoint changed to a protocol that nobody asked for".into())
        })?,
        None => asked,
    };
    strip_hop_by_hop(&mut fields).map_err(|error| upstream::malformed(error.to_string()))?;
    let response = Response {
        status: StatusCode::SWITCHING_PROTOCOLS,
        fields,
        body: ResponseBody::empty(),
        closes: Closes::Nothing,
    };
    Ok((response, protocol))
}

/// The protocol that the endpoint chose, if it is one of those that the client offered.
fn chosen(offered: &str, said: &[u8]) -> Option<Box<str>> {
    let said = std::str::from_utf8(said).ok()?;
    let mut offered = offered.split(',').map(str::trim);
    offered
        .any(|offer| offer.eq_ignore_ascii_case(said))
        .then(|| said.into())
}

/// Attempt after attempt, until one is good enough or the last.
async fn attempts(
    connection: &Connection,
    (route, affinity): (&Route, &Affinity),
    request: &mut Request,
    (exchange, under_way): (&mut Exchange, &mut Option<Meeting>),
    (place, mut moment): (Arc<Place>, Time),
) -> Result<Upgraded, Failure> {
    let policy = route.service.policy();
    let mut body = std::mem::replace(&mut request.body, RequestBody::Empty);
    let replay = body.replay();
    if let Some(replay) = replay.as_ref().filter(|_| policy.retries.attempts > 0) {
        replay.keep(policy.retries.replay_body_max_bytes);
    }
    let mut tried = Vec::new();
    let mut number = 0;
    let mut renewed: Option<Route> = None;
    loop {
        let route = renewed.as_ref().unwrap_or(route);
        number += 1;
        let picked = pick(route, affinity, &tried, moment)?;
        exchange.attempt(picked.endpoint.address(), &picked.endpoint.spec().pod);
        let wire = wire_to(&picked, route);
        exchange.sending(wire, &mut request.fields);
        let meeting = under_way.insert(Meeting {
            picked,
            wire,
            begun: moment,
            body: replay.clone(),
        });
        let outcome = one(connection, route, request, body, meeting, &place).await;
        exchange.met(&outcome);
        if let Some(error) = replay.as_ref().and_then(Replay::client_failed) {
            return Err(client_failed(error));
        }
        report(connection, route, meeting, &outcome);
        let (kind, safety) = match retry_of(&outcome, wire) {
            Retry::Never => return outcome,
            Retry::Perhaps(kind, safety) => (kind, safety),
        };
        let permitted = policy.retries.permits(number, kind, safety)
            && request.upgrade.is_none()
            && replay.as_ref().is_none_or(Replay::is_whole)
            && route.service.live().afford_retry(now());
        if !permitted {
            return outcome;
        }
        let next = match &replay {
            None => RequestBody::Empty,
            Some(replay) => replay.again(),
        };
        connection
            .shared
            .metrics
            .upstream(route.service.name(), "retried");
        // The refused answer's connection must not be held while waiting.
        drop(outcome);
        body = next;
        tried.push(meeting.picked.index);
        *under_way = None;
        if kind != FailureKind::Refused
            && !(kind == FailureKind::Reset && safety != Safety::Unknown)
        {
            tokio::time::sleep(policy.retries.backoff.after(number, chance())).await;
        }
        moment = now();
        if let Some(newer) = renew(connection, route) {
            tried = same_endpoints(&route.service, &tried, &newer.service);
            renewed = Some(newer);
        }
    }
}

/// The route by what is known now: an attempt that failed may have met an endpoint that has left since.
fn renew(connection: &Connection, route: &Route) -> Option<Route> {
    let snapshot = connection.shared.snapshot.load();
    let service = snapshot.services.named(route.service.name())?;
    let newer = route.endpoint.is_none() && !Arc::ptr_eq(service, &route.service);
    newer.then(|| Route {
        service: service.clone(),
        ..route.clone()
    })
}

/// Where the endpoints at `indices` of a service are in a newer version of it.
fn same_endpoints(old: &Service, indices: &[usize], new: &Service) -> Vec<usize> {
    let find = |index: &usize| {
        let live = old.endpoints().get(*index)?.live();
        let same = |endpoint: &Endpoint| Arc::ptr_eq(endpoint.live(), live);
        new.endpoints().iter().position(same)
    };
    indices.iter().filter_map(find).collect()
}

fn pick(
    route: &Route,
    affinity: &Affinity,
    tried: &[usize],
    moment: Time,
) -> Result<Picked, Failure> {
    let picked = match route.endpoint {
        Some(index) => route.service.pick_this(index),
        None => route.service.pick(tried, affinity.key(), moment, chance()),
    };
    picked.map_err(|none| {
        let name = route.service.name();
        let (reason, detail) = match none {
            NoPick::Empty => (Reason::NoEndpoint, format!("{name} has no endpoints")),
            NoPick::AllEjected => (
                Reason::BreakerOpen,
                format!("all endpoints of {name} are ejected"),
            ),
        };
        Failure::new(Side::Upstream, Step::Pick, reason, detail)
    })
}

/// How the endpoint is spoken with.
fn wire_to(picked: &Picked, route: &Route) -> Wire {
    match (&picked.endpoint.spec().identity, route.http2) {
        (Some(_), _) => Wire::Mesh,
        (None, true) => Wire::Http2,
        (None, false) => Wire::Http1,
    }
}

/// One attempt, within its time.
async fn one(
    connection: &Connection,
    route: &Route,
    request: &Request,
    body: RequestBody,
    meeting: &Meeting,
    place: &Arc<Place>,
) -> Result<Upgraded, Failure> {
    let Meeting { picked, wire, .. } = meeting;
    let dialer = Dialer {
        connection,
        service: &route.service,
        picked,
        is_placed: false,
    };
    let attempt = Attempt {
        request,
        body,
        wire: *wire,
        http2_beyond: route.http2,
    };
    let exchange = pin!(upstream::attempt(
        dialer,
        attempt,
        picked.clone(),
        place.clone()
    ));
    match route.service.policy().per_try_timeout {
        Some(patience) => Deadline::default()
            .within(clock::moment().instant, patience, exchange)
            .await
            .unwrap_or_else(|| Err(took_too_long(Reason::PerTryTimeout, patience))),
        None => exchange.await,
    }
}

/// Whether an outcome asks for another attempt.
fn retry_of(outcome: &Result<Upgraded, Failure>, wire: Wire) -> Retry {
    match outcome {
        // A pod that ends loses its application before its proxy: the request is as good as never sent.
        Ok(Upgraded::No(response)) if wire == Wire::Mesh && never_arrived(response) => {
            Retry::Perhaps(FailureKind::Connect, Safety::Unprocessed)
        }
        Ok(Upgraded::No(response)) if response.status.as_u16() >= 400 => Retry::Perhaps(
            FailureKind::Status(response.status.as_u16()),
            Safety::Unknown,
        ),
        // A head that has the status already has no message behind it ("Trailers-Only").
        Ok(Upgraded::No(response)) => match grpc_status(response) {
            None | Some(0) => Retry::Never,
            Some(status) => Retry::Perhaps(FailureKind::Grpc(status), Safety::Unknown),
        },
        Ok(_) => Retry::Never,
        Err(failure) => failure.retry,
    }
}

fn grpc_status(response: &Response) -> Option<u8> {
    let said = response.fields.get(Known::GrpcStatus)?;
    std::str::from_utf8(said).ok()?.parse().ok()
}

/// The proxy beside the endpoint says that it could not reach the application: with a status of its own, or with gRPC's.
fn never_arrived(response: &Response) -> bool {
    let Some(reason) = response.fields.get(Known::MeshgateReason) else {
        return false;
    };
    reason.starts_with(Reason::UpstreamConnect.as_str().as_bytes())
        && (response.status == Reason::UpstreamConnect.status()
            || grpc_status(response) == Some(GRPC_UNAVAILABLE))
}

/// An attempt at an endpoint.
struct Meeting {
    picked: Picked,
    wire: Wire,
    begun: Time,
    /// What the client sends, if that is anything.
    body: Option<Replay>,
}

impl Meeting {
    /// Since when the endpoint alone was waited for: the client had sent everything.
    fn since(&self) -> Time {
        let ended = self.body.as_ref().and_then(Replay::ended);
        ended.map_or(self.begun, |ended| ended.max(self.begun))
    }

    /// Whether it is the endpoint's fault. Its own limits and the client's faults say nothing about it; nor does a timeout
    /// before the client has sent everything.
    fn is_to_blame(&self, outcome: &Result<Upgraded, Failure>) -> bool {
        let asked = |body: &Replay| body.ended().is_some();
        match outcome {
            Ok(Upgraded::No(response)) => {
                response.status.is_server_error()
                    || self.wire == Wire::Mesh && never_arrived(response)
            }
            Ok(Upgraded::Yes { .. }) => false,
            Err(failure) => match failure.reason {
                Reason::PerTryTimeout | Reason::RequestTimeout => {
                    self.body.as_ref().is_none_or(asked)
                }
                _ => failure.side == Side::Upstream,
            },
        }
    }
}

/// Tells the breaker and the balancer.
fn report(
    connection: &Connection,
    route: &Route,
    meeting: &Meeting,
    outcome: &Result<Upgraded, Failure>,
) {
    let (service, picked) = (&route.service, &meeting.picked);
    let since = || meeting.since();
    let change = match outcome {
        _ if meeting.is_to_blame(outcome) => service.failed(picked, since, now(), chance()),
        Ok(Upgraded::No(response)) if response.status == StatusCode::TOO_MANY_REQUESTS => {
            service.was_busy(picked, since, asked_pause(response))
        }
        Ok(_) => service.succeeded(picked, since),
        Err(_) => Change::None,
    };
    let (name, address) = (route.service.name(), picked.endpoint.address());
    match change {
        Change::None => {}
        Change::Ejected(until) => {
            let seconds = until.since(now()).as_secs_f64();
            tracing::info!(service = %name, endpoint = %address, seconds, "endpoint ejected");
            connection.shared.metrics.upstream(name, "ejected");
        }
        Change::Returned => {
            tracing::info!(service = %name, endpoint = %address, "endpoint taken back");
            connection.shared.metrics.upstream(name, "returned");
        }
    }
}

/// For how long an answer asks to be left alone: seconds, or until a date (RFC 9110 §10.2.3).
fn asked_pause(response: &Response) -> Option<Duration> {
    let said = std::str::from_utf8(response.fields.get(Known::RetryAfter)?).ok()?;
    match said.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => {
            let date = httpdate::parse_http_date(said).ok()?;
            date.duration_since(SystemTime::now()).ok()
        }
    }
}

fn took_too_long(reason: Reason, patience: Duration) -> Failure {
    let retry = match reason {
        Reason::PerTryTimeout => Retry::Perhaps(FailureKind::PerTryTimeout, Safety::Unknown),
        _ => Retry::Never,
    };
    Failure {
        retry,
        ..Failure::new(
            Side::Upstream,
            Step::Exchange,
            reason,
            format!("no answer within {patience:?}"),
        )
    }
}

fn client_failed(error: BodyError) -> Failure {
    match error {
        BodyError::TooLarge => {
            Failure::downstream(Reason::BodyTooLarge, "the body is larger than allowed")
        }
        BodyError::Bad(why) => Failure::downstream(Reason::BadRequest, why),
        BodyError::Slow => Failure::downstream(Reason::ClientTimeout, "the body stopped coming"),
        BodyError::Cut(_) | BodyError::Superseded => {
            Failure::downstream(Reason::ClientGone, "the request's body ended early")
        }
    }
}
