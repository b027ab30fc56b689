//! Bytes passed on: TCP connections, tunnels between proxies, and connections that changed their protocol.

mod relay;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use http::StatusCode;
use meshgate_codec::Fields;
use tokio::io::AsyncReadExt;

use crate::clock::{chance, now};
use crate::detect::{Detected, Spoken, detect};
use crate::failure::{Failure, Reason, Retry, Side, Step};
use crate::head::Switch;
use crate::http2::Stream;
use crate::io::Io;
use crate::record::Exchange;
use crate::reply::{self, Manner};
use crate::serve::{Connection, serve_http1, serve_http2};
use crate::service::{NoPick, Pass, Picked};
use crate::story::{Affinity, Route, permit_tcp, route_tcp};
use crate::tls::origin::Alpn;
use crate::upstream::{Dialer, Inside, tunnel};
use relay::{Relayed, relay};

/// A TCP connection: the story of a request, for bytes.
pub(crate) async fn serve(connection: Connection, client: Io, destination: SocketAddr) {
    let mut exchange = Exchange::open(&connection, "TCP");
    match open(&connection, destination, &mut exchange).await {
        Ok(upstream) => pass(&connection, client, upstream, exchange).await,
        Err(failure) => give_up(&connection, &failure, exchange),
    }
}

/// What begins like HTTP and does not go on is passed on as it is after so long.
const UNDECIDED_MAX: Duration = Duration::from_secs(5);

/// A connection whose client has said nothing (or nothing decisive) so far: perhaps its server speaks first. Whoever
/// speaks decides; a client that turns out to speak HTTP after all is served as such.
pub(crate) async fn serve_whoever_speaks_first(
    connection: Connection,
    mut client: Io,
    mut ahead: BytesMut,
    destination: SocketAddr,
) {
    let mut exchange = Exchange::open(&connection, "TCP");
    let mut upstream = match open(&connection, destination, &mut exchange).await {
        Ok(upstream) => upstream,
        Err(failure) => return give_up(&connection, &failure, exchange),
    };
    let patience = match ahead.is_empty() {
        true => upstream.idle.unwrap_or(Duration::MAX),
        false => UNDECIDED_MAX,
    };
    let mut first = BytesMut::with_capacity(1024);
    let detected = tokio::select! {
        detected = detect(&mut client, &mut ahead, patience) => detected,
        read = upstream.io.read_buf(&mut first) => {
            if !matches!(read, Ok(1..)) {
                return exchange.tcp_ended();
            }
            Detected::Spoke(Spoken::Tcp)
        }
    };
    let is_silent = ahead.is_empty() && detected == Detected::Silent;
    if is_silent || detected == Detected::Gone {
        return exchange.tcp_ended();
    }
    let client = client.with_ahead(ahead.freeze());
    let Detected::Spoke(http @ (Spoken::Http1 | Spoken::Http2)) = detected else {
        upstream.io = upstream.io.with_ahead(first.freeze());
        return pass(&connection, client, upstream, exchange).await;
    };
    // The endpoint was only looked at: the requests have records of their own.
    exchange.forget();
    drop(upstream);
    match http {
        Spoken::Http2 => serve_http2(connection, client).await,
        _ => serve_http1(connection, client).await,
    }
}

/// A connection to an endpoint, with what it holds.
pub(crate) struct Upstream {
    io: Io,
    idle: Option<Duration>,
    _picked: Picked,
    _place: Pass,
}

/// route → permit → pick → connect.
async fn open(
    connection: &Connection,
    destination: SocketAddr,
    exchange: &mut Exchange,
) -> Result<Upstream, Failure> {
    let snapshot = connection.shared.snapshot.load_full();
    let route = route_tcp(connection, &snapshot, destination);
    exchange.routed(&route.origin, route.service.name());
    permit_tcp(connection, &snapshot, destination)?;
    connect(connection, &route, exchange).await
}

/// Connections are tried like requests: no byte was passed on yet, so another endpoint may do better.
async fn connect(
    connection: &Connection,
    route: &Route,
    exchange: &mut Exchange,
) -> Result<Upstream, Failure> {
    let policy = route.service.policy();
    let affinity = Affinity::of_connection(connection, policy.hash_on.as_ref());
    let mut tried = Vec::new();
    loop {
        let begun = now();
        let picked = match route.endpoint {
            Some(index) => route.service.pick_this(index),
            None => route.service.pick(&tried, affinity.key(), now(), chance()),
        };
        let picked = picked.map_err(|none| no_endpoint(route, none))?;
        tried.push(picked.index);
        exchange.attempt(picked.endpoint.address(), &picked.endpoint.spec().pod);
        let dialer = Dialer {
            connection,
            service: &route.service,
            picked: &picked,
            is_placed: true,
        };
        let place = dialer.place().await?;
        let reached = match picked.endpoint.spec().identity {
            Some(_) => tunnel(dialer, Inside::Bytes).await,
            None => dialer.direct(Alpn::Bytes).await,
        };
        let failure = match reached {
            Ok(io) => {
                route.service.succeeded(&picked, || begun);
                return Ok(Upstream {
                    io,
                    idle: policy.idle_timeout,
                    _picked: picked,
                    _place: place,
                });
            }
            Err(failure) => failure,
        };
        // What the proxy itself lacks says nothing about an endpoint.
        if failure.side == Side::Upstream {
            route.service.failed(&picked, || begun, now(), chance());
        }
        let again = matches!(failure.retry, Retry::Perhaps(kind, safety)
            if policy.retries.permits(tried.len() as u32, kind, safety))
            && tried.len() < route.service.endpoints().len();
        if !again || !route.service.live().afford_retry(now()) {
            return Err(failure);
        }
    }
}

fn no_endpoint(route: &Route, none: NoPick) -> Failure {
    let reason = match none {
        NoPick::Empty => Reason::NoEndpoint,
        NoPick::AllEjected => Reason::BreakerOpen,
    };
    Failure::new(
        Side::Upstream,
        Step::Pick,
        reason,
        route.service.name().to_string(),
    )
}

async fn pass(
    connection: &Connection,
    client: Io,
    upstream: Upstream,
    mut exchange: Box<Exchange>,
) {
    let relayed = relay(client, upstream.io, upstream.idle, &connection.drain).await;
    record(&mut exchange, &relayed);
    exchange.tcp_ended();
}

fn record(exchange: &mut Exchange, relayed: &Relayed) {
    exchange.received(relayed.from_client);
    exchange.sent(relayed.to_client);
}

fn give_up(connection: &Connection, failure: &Failure, mut exchange: Box<Exchange>) {
    tracing::debug!(client = %connection.client, %failure, "TCP connection refused");
    exchange.failed(failure);
    exchange.tcp_ended();
}

/// Another proxy's tunnel to the own application: agreed to once the application answers.
pub(crate) async fn tunnel_to(connection: &Arc<Connection>, stream: Stream, to: SocketAddr) {
    let mut exchange = Exchange::open(connection, "TCP");
    let upstream = match open(connection, to, &mut exchange).await {
        Ok(upstream) => upstream,
        Err(failure) => {
            give_up(connection, &failure, exchange);
            let response = reply::to_failure(&failure, Manner::Text);
            return stream.respond(response).await;
        }
    };
    match stream.agree(StatusCode::OK.as_u16(), &Fields::default()) {
        Some(client) => pass(connection, client.into(), upstream, exchange).await,
        None => exchange.tcp_ended(),
    }
}

/// Both ends of an exchange agreed on another protocol.
pub(crate) async fn relay_upgraded(connection: &Connection, client: Io, switch: Switch) {
    // The endpoint's load and limits count it to the end.
    let _held = switch.held;
    let relayed = relay(client, switch.upstream, switch.idle, &connection.drain).await;
    let metrics = &connection.shared.metrics;
    metrics.bytes(connection.direction.name(), "in", relayed.from_client);
    metrics.bytes(connection.direction.name(), "out", relayed.to_client);
}
