//! The second step: where the request goes.

use std::net::SocketAddr;
use std::sync::Arc;

use meshgate_codec::Version;
use meshgate_routing::permit::AccessRules;
use meshgate_routing::route::{Found, NoRoute, Precision, RouteRequest};

use super::permit;
use crate::failure::{Failure, Reason, Side, Step};
use crate::head::Request;
use crate::limits::RateLimit;
use crate::local::passthrough;
use crate::serve::{Connection, Direction};
use crate::service::{Protocol, Service};
use crate::snapshot::{Rule, Snapshot, Target};
use crate::tls::ClientAuth;

/// Where a request or a connection goes.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    pub(crate) service: Arc<Service>,
    /// The client asked for this very endpoint.
    pub(crate) endpoint: Option<usize>,
    /// The object that the rule comes from.
    pub(crate) origin: Arc<str>,
    pub(crate) limits: Vec<Arc<RateLimit>>,
    /// Edge: who may ask.
    pub(crate) access: Option<Arc<AccessRules>>,
    /// What the endpoint's application speaks.
    pub(crate) http2: bool,
}

pub(super) fn route(
    connection: &Connection,
    snapshot: &Snapshot,
    request: &Request,
) -> Result<Route, Failure> {
    match connection.direction {
        Direction::Edge => edge(connection, snapshot, request),
        Direction::Outbound => {
            let destination = connection.destination.ok_or_else(nowhere)?;
            let mut route = outbound(connection, snapshot, destination);
            route.http2 = speaks_http2(route.service.protocol(), request.version == Version::Http2);
            Ok(route)
        }
        Direction::Inbound => {
            let (address, http2) = match (request.destination, connection.destination) {
                (Some(destination), _) => {
                    let address = connection.application(destination.port);
                    (address, destination.http2)
                }
                (None, Some(address)) => (address, request.version == Version::Http2),
                (None, None) => return Err(nowhere()),
            };
            Ok(Route {
                http2,
                ..inbound(connection, address)
            })
        }
    }
}

/// Where a TCP connection goes; the edge has none.
pub(crate) fn route_tcp(
    connection: &Connection,
    snapshot: &Snapshot,
    destination: SocketAddr,
) -> Route {
    match connection.direction {
        Direction::Inbound => inbound(connection, destination),
        Direction::Outbound | Direction::Edge => outbound(connection, snapshot, destination),
    }
}

fn edge(connection: &Connection, snapshot: &Snapshot, request: &Request) -> Result<Route, Failure> {
    let host = request.host().trim_end_matches('.');
    same_name_as_tls(connection, snapshot, host)?;
    same_proof(connection, snapshot, host)?;
    let refused = |reason, detail: String| Failure::new(Side::Proxy, Step::Route, reason, detail);
    let found = find(snapshot, request).map_err(|none| {
        let detail = match none {
            NoRoute::Host => format!("host {:?}", request.host()),
            NoRoute::Path => format!("path {:?}", request.path()),
            NoRoute::Conditions => {
                let path = request.path();
                format!("path {path:?} with this method, these header fields and this query")
            }
        };
        refused(Reason::NoRoute, detail)
    })?;
    proof_for_rules(connection, snapshot, host, found.precision)?;
    let rule = found.rule;
    let service = serving(snapshot, rule).or_else(|problem| {
        // Whom the rule does not let in learns nothing of what is behind it.
        permit::by_rules(connection, rule.access.as_deref(), request)?;
        Err(refused(Reason::Misconfigured, problem))
    })?;
    Ok(Route {
        http2: match service.protocol() {
            Protocol::Auto => request.version == Version::Http2 && request.is_grpc(),
            protocol => protocol == Protocol::Http2,
        },
        service: service.clone(),
        endpoint: None,
        origin: rule.origin.clone(),
        limits: rule.limits.clone(),
        access: rule.access.clone(),
    })
}

/// The service behind a rule, or why there is none.
fn serving<'a>(snapshot: &'a Snapshot, rule: &Rule) -> Result<&'a Arc<Service>, String> {
    match &rule.target {
        Target::Problem(problem) => Err(problem.to_string()),
        Target::Service(name) => {
            let service = snapshot.services.named(name);
            service.ok_or_else(|| format!("service {name} is not known"))
        }
    }
}

fn find<'a>(snapshot: &'a Snapshot, request: &Request) -> Result<Found<'a, Rule>, NoRoute> {
    let field = |name: &str| request.said(name);
    let asked = RouteRequest {
        method: request.method.as_str(),
        path: request.path(),
        query: request.query(),
        field: &field,
    };
    snapshot.routes.find(request.host(), &asked)
}

/// A connection that was opened for one name must not be used for a name with another certificate: the client would
/// believe in a proof it never saw (RFC 9110 §15.5.20). `host` has no dot of the root, here and below.
fn same_name_as_tls(
    connection: &Connection,
    snapshot: &Snapshot,
    host: &str,
) -> Result<(), Failure> {
    let Some(name) = &connection.server_name else {
        return Ok(());
    };
    if host.eq_ignore_ascii_case(name) {
        return Ok(());
    }
    let shown = snapshot.certificates.find(name);
    let wanted = snapshot.certificates.find(&host.to_ascii_lowercase());
    match (shown, wanted) {
        (Some(shown), Some(wanted)) if Arc::ptr_eq(shown, wanted) => Ok(()),
        _ => Err(Failure::downstream(
            Reason::Misdirected,
            format!("the connection is for {name:?}"),
        )),
    }
}

/// A host is reached only by connections whose handshake demanded the client certificate that the host demands now, or more,
/// or none where it demands none: who was let in for one host is a stranger to another.
fn same_proof(connection: &Connection, snapshot: &Snapshot, host: &str) -> Result<(), Failure> {
    let certificates = &snapshot.certificates;
    let wanted = certificates.client_auth_of_host(host);
    let proof = &connection.client_proof;
    if proof.is_for(wanted.map(Arc::as_ref), connection.tls) {
        return Ok(());
    }
    if let Some(wanted) = wanted {
        provable(connection, host, wanted)?;
    }
    let name = connection.server_name.as_deref().unwrap_or_default();
    let own = certificates.client_auth(name).map(Arc::as_ref);
    // A connection that is no good for its own name is no good for any.
    let reason = match proof.is_for(own, connection.tls) {
        true => Reason::Misdirected,
        false => Reason::Outdated,
    };
    let detail = format!(
        "{host:?} has other demands of client certificates than the connection for {name:?} met: open another"
    );
    Err(Failure::downstream(reason, detail))
}

/// Rules of a less precise host, which a request comes to when its own has none for the path, have demands of their own.
/// No other connection would meet them: which certificate is demanded depends on the request's host.
fn proof_for_rules(
    connection: &Connection,
    snapshot: &Snapshot,
    host: &str,
    precision: Precision,
) -> Result<(), Failure> {
    let wanted = match precision {
        Precision::Exact => None,
        _ => snapshot.certificates.client_auth_of_rules(host, precision),
    };
    let Some(wanted) = wanted else {
        return Ok(());
    };
    if connection.client_proof.is_for(Some(wanted), connection.tls) {
        return Ok(());
    }
    provable(connection, host, wanted)?;
    let detail = format!(
        "the rule for this path is another host's, which demands client certificates that {host:?} does not"
    );
    Err(Failure::downstream(Reason::AccessDenied, detail))
}

/// Whether any connection of this kind could prove what is wanted.
fn provable(connection: &Connection, host: &str, wanted: &ClientAuth) -> Result<(), Failure> {
    if let Some(why) = wanted.refused() {
        let detail = format!("client certificates for {host:?} cannot be verified: {why}");
        let (side, step) = (Side::Proxy, Step::Route);
        return Err(Failure::new(side, step, Reason::Misconfigured, detail));
    }
    if !connection.tls {
        let detail = "https is needed here: this host demands client certificates";
        return Err(Failure::downstream(Reason::AccessDenied, detail));
    }
    Ok(())
}

fn outbound(connection: &Connection, snapshot: &Snapshot, destination: SocketAddr) -> Route {
    let services = &snapshot.services;
    let found = services
        .at(destination)
        .map(|service| (service.clone(), None))
        .or_else(|| {
            let (service, index) = services.of_endpoint(destination)?;
            Some((service.clone(), Some(index)))
        });
    let (service, endpoint) = found.unwrap_or_else(|| (passthrough(destination), None));
    Route {
        origin: connection.shared.nothing.clone(),
        http2: service.protocol() == Protocol::Http2,
        service,
        endpoint,
        limits: Vec::new(),
        access: None,
    }
}

fn inbound(connection: &Connection, address: SocketAddr) -> Route {
    Route {
        service: connection.shared.local.at(address),
        endpoint: None,
        origin: connection.shared.nothing.clone(),
        limits: Vec::new(),
        access: None,
        http2: false,
    }
}

/// A sidecar passes on what the client speaks, unless the Service says otherwise.
fn speaks_http2(protocol: Protocol, client: bool) -> bool {
    match protocol {
        Protocol::Http1 => false,
        Protocol::Http2 => true,
        Protocol::Auto | Protocol::Tcp => client,
    }
}

fn nowhere() -> Failure {
    let detail = "the connection has no original destination";
    Failure::new(Side::Proxy, Step::Route, Reason::NoRoute, detail)
}
