//! The third step: may the request go on.

use std::net::{IpAddr, SocketAddr};

use meshgate_codec::Known;
use meshgate_routing::permit::access::AccessHttp;
use meshgate_routing::permit::limit::LimitRequest;
use meshgate_routing::permit::{AccessRequest, AccessRules, AccessVerdict};

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
    match connection.direction {
        Direction::Edge => by_rules(connection, route.access.as_deref(), request),
        Direction::Inbound => {
            let host = asked_host(request);
            let application = route.service.endpoints().first();
            let address = application.map(|endpoint| endpoint.address());
            inbound(connection, snapshot, address, Some(asked(request, &host)))
        }
        Direction::Outbound => Ok(()),
    }
}

/// As routes know it: `A.test.` is `a.test`.
fn asked_host(request: &Request) -> String {
    request.host().trim_end_matches('.').to_ascii_lowercase()
}

fn asked<'a>(request: &'a Request, host: &'a str) -> AccessHttp<'a> {
    AccessHttp {
        method: request.method.as_str(),
        path: request.path(),
        host,
    }
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

/// By the rules of an edge, if there are any: its clients have an address, and no identity.
pub(super) fn by_rules(
    connection: &Connection,
    rules: Option<&AccessRules>,
    request: &Request,
) -> Result<(), Failure> {
    let Some(rules) = rules else {
        return Ok(());
    };
    let Some(address) = told_address(request) else {
        // Judged by another address it could be let in.
        return Err(refused(Reason::AccessDenied, ""));
    };
    let host = asked_host(request);
    let asked = AccessRequest {
        peer: None,
        address,
        port: connection.reached.port(),
        http: Some(asked(request, &host)),
    };
    judge(connection, rules, &asked)
}

fn inbound(
    connection: &Connection,
    snapshot: &Snapshot,
    destination: Option<SocketAddr>,
    http: Option<AccessHttp<'_>>,
) -> Result<(), Failure> {
    let port = destination.map_or(0, |address| address.port());
    let workload = &snapshot.workload;
    if matches!(connection.peer, Peer::Plain) && workload.mtls(port) == Mtls::Strict {
        return Err(refused(
            Reason::MtlsRequired,
            "this workload takes mTLS only",
        ));
    }
    let asked = AccessRequest {
        peer: connection.peer.known(),
        address: connection.client.ip(),
        port,
        http,
    };
    judge(connection, &workload.access, &asked)
}

fn judge(
    connection: &Connection,
    rules: &AccessRules,
    asked: &AccessRequest<'_>,
) -> Result<(), Failure> {
    let (client, port) = (asked.address, asked.port);
    let (method, path) = asked.http.map(|http| (http.method, http.path)).unzip();
    match rules.decide(asked) {
        AccessVerdict::Allowed => Ok(()),
        AccessVerdict::WouldDeny { by } => {
            let peer = connection.peer_label();
            tracing::info!(policy = by, %peer, %client, port, method, path, "access would be denied (audit)");
            Ok(())
        }
        AccessVerdict::Denied { by } => {
            let peer = connection.peer_label();
            tracing::debug!(policy = by, %peer, %client, port, method, path, "access denied");
            // Which policy it was is nobody's business but the record's.
            Err(refused(Reason::AccessDenied, ""))
        }
    }
}

fn refused(reason: Reason, detail: &'static str) -> Failure {
    Failure::new(Side::Downstream, Step::Permit, reason, detail)
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

/// The client's address; elsewhere than at an edge it is the connection's.
pub(super) fn client_address(request: &Request, connection: &Connection) -> IpAddr {
    let told = match connection.direction {
        Direction::Edge => told_address(request),
        Direction::Inbound | Direction::Outbound => None,
    };
    told.unwrap_or_else(|| connection.client.ip())
}

/// What the edge wrote when it introduced the request.
fn told_address(request: &Request) -> Option<IpAddr> {
    let value = request.fields.get(Known::XRealIp)?;
    std::str::from_utf8(value).ok()?.parse().ok()
}
