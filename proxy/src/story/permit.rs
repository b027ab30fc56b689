//! The third step: may the request go on.

use std::net::SocketAddr;

use meshgate_codec::Known;
use meshgate_routing::permit::access::AccessHttp;
use meshgate_routing::permit::limit::LimitRequest;
use meshgate_routing::permit::{AccessRequest, AccessVerdict};

use super::Route;
use crate::clock::now;
use crate::failure::{Failure, Limited, Reason, Side, Step};
use crate::head::Request;
use crate::limits::RateLimit;
use crate::memory::Pressure;
use crate::serve::{Connection, Direction, Peer};
use crate::snapshot::{Mtls, Snapshot};

/// By who asks, and for what.
pub(super) fn permit(
    connection: &Connection,
    snapshot: &Snapshot,
    route: &Route,
    request: &Request,
) -> Result<(), Failure> {
    afford(connection)?;
    if connection.direction == Direction::Inbound {
        let host = request.host().to_ascii_lowercase();
        let http = AccessHttp {
            method: request.method.as_str(),
            path: request.path(),
            host: &host,
        };
        let address = route
            .service
            .endpoints()
            .first()
            .map(|endpoint| endpoint.address());
        inbound(connection, snapshot, address, Some(http))?;
    }
    Ok(())
}

/// By how much was asked before.
pub(super) async fn limit(
    connection: &Connection,
    route: &Route,
    request: &Request,
) -> Result<(), Failure> {
    for limit in &route.limits {
        within(connection, limit, request).await?;
    }
    Ok(())
}

/// The same for a TCP connection.
pub(crate) fn permit_tcp(
    connection: &Connection,
    snapshot: &Snapshot,
    destination: SocketAddr,
) -> Result<(), Failure> {
    afford(connection)?;
    match connection.direction {
        Direction::Inbound => inbound(connection, snapshot, Some(destination), None),
        Direction::Edge | Direction::Outbound => Ok(()),
    }
}

/// Whether there is memory for something new.
fn afford(connection: &Connection) -> Result<(), Failure> {
    match connection.shared.memory.pressure(now()) {
        Pressure::None => Ok(()),
        Pressure::High | Pressure::Critical => Err(Failure::new(
            Side::Proxy,
            Step::Permit,
            Reason::Overload,
            "memory",
        )),
    }
}

fn inbound(
    connection: &Connection,
    snapshot: &Snapshot,
    destination: Option<SocketAddr>,
    http: Option<AccessHttp<'_>>,
) -> Result<(), Failure> {
    let refused =
        |reason, detail: &'static str| Failure::new(Side::Downstream, Step::Permit, reason, detail);
    let port = destination.map_or(0, |address| address.port());
    let workload = &snapshot.workload;
    if matches!(connection.peer, Peer::Plain) && workload.mtls(port) == Mtls::Strict {
        return Err(refused(
            Reason::MtlsRequired,
            "this workload takes mTLS only",
        ));
    }
    let request = AccessRequest {
        peer: connection.peer.known(),
        address: connection.client.ip(),
        port,
        http,
    };
    match workload.access.decide(&request) {
        AccessVerdict::Allowed => Ok(()),
        AccessVerdict::WouldDeny { by } => {
            let peer = connection.peer_label();
            tracing::info!(policy = by, %peer, port, "access would be denied (audit)");
            Ok(())
        }
        AccessVerdict::Denied { by } => {
            let peer = connection.peer_label();
            tracing::debug!(policy = by, %peer, port, "access denied");
            // Which policy it was is nobody's business but the record's.
            Err(refused(Reason::AccessDenied, ""))
        }
    }
}

async fn within(
    connection: &Connection,
    limit: &RateLimit,
    request: &Request,
) -> Result<(), Failure> {
    let header = |name: &str| request.fields.get(name);
    let asked = LimitRequest {
        method: request.method.as_str(),
        path: request.path(),
        client: client_address(request, connection),
        identity: connection.peer.known().map(|peer| peer.as_str()),
        header: &header,
    };
    let terms = limit.limit();
    if !terms.counts(&asked) {
        return Ok(());
    }
    let metrics = &connection.shared.metrics;
    let taken = limit.take(&asked).await;
    metrics.limit_buckets_evicted(&terms.id, limit.newly_evicted());
    match taken {
        Ok(_) => {
            metrics.limit(&terms.id, "permitted");
            Ok(())
        }
        Err(_) if terms.shadow => {
            metrics.limit(&terms.id, "would-refuse");
            Ok(())
        }
        Err(refusal) => {
            metrics.limit(&terms.id, "refused");
            let reason = Reason::RateLimited;
            let name = terms.name.to_string();
            let mut failure = Failure::new(Side::Downstream, Step::Permit, reason, name.clone());
            failure.limited = Some(Box::new(Limited {
                name,
                quota: terms.rate.requests,
                window: terms.rate.per,
                retry_after: refusal.retry_after,
            }));
            Err(failure)
        }
    }
}

/// The edge wrote the client's address when it introduced the request; elsewhere it is the connection's.
pub(super) fn client_address(request: &Request, connection: &Connection) -> std::net::IpAddr {
    request
        .fields
        .get(Known::XRealIp)
        .filter(|_| connection.direction == Direction::Edge)
        .and_then(|value| std::str::from_utf8(value).ok()?.parse().ok())
        .unwrap_or_else(|| connection.client.ip())
}
