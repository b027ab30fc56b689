//! Where services are reached and which endpoints answer there. Pure: objects of the API in, frontends out.

mod rules;

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use meshgate_netfilter::Protocol;

use super::NodeNetworkConfig;
use super::slices::Slices;
pub(super) use rules::{PORTS_MAX, table};

/// One place where clients find a service, and where it leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frontend {
    at: At,
    port: u16,
    protocol: Protocol,
    backends: BTreeSet<(Ipv4Addr, u16)>,
}

/// What clients address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum At {
    /// An address of the service.
    Address(Ipv4Addr),
    /// Every address of the node, on the service's node port.
    Node(Clients),
}

/// Whom a frontend at the node serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Clients {
    /// Everybody, with any endpoint: `externalTrafficPolicy: Cluster`.
    All,
    /// The node and its pods, with any endpoint: to them `externalTrafficPolicy: Local` does not apply.
    Own,
    /// Everybody else under `externalTrafficPolicy: Local`: only with endpoints of this node, which see the client's own
    /// address.
    Elsewhere,
}

/// Every place where services are found on `node`, with their live backends. `slices` may be of any service.
pub(super) fn frontends<'a>(
    services: impl IntoIterator<Item = &'a Service>,
    slices: &Slices<'_>,
    node: NodeNetworkConfig,
) -> Vec<Frontend> {
    let mut all: Vec<Frontend> = services
        .into_iter()
        .flat_map(|service| service_frontends(service, slices.of(service), node))
        .collect();
    all.sort_by_key(|f| (f.at, f.port, f.protocol));
    all
}

fn service_frontends(
    service: &Service,
    slices: &[&EndpointSlice],
    node: NodeNetworkConfig,
) -> Vec<Frontend> {
    let Some(spec) = &service.spec else {
        return Vec::new();
    };
    let addresses = spec
        .cluster_ip
        .iter()
        .chain(spec.external_ips.iter().flatten());
    let addresses: Vec<Ipv4Addr> = addresses.filter_map(|ip| ip.parse().ok()).collect();
    let own_endpoints_only = spec.external_traffic_policy.as_deref() == Some("Local");
    let mut all = Vec::new();
    for port in spec.ports.iter().flatten() {
        let Some(protocol) = protocol(port.protocol.as_deref()) else {
            continue;
        };
        let anywhere = backends(port, slices, |_| true);
        let mut add = |at, port, backends: &BTreeSet<_>| {
            all.push(Frontend {
                at,
                port,
                protocol,
                backends: backends.clone(),
            });
        };
        if let Some(number) = number(port.port) {
            for address in &addresses {
                add(At::Address(*address), number, &anywhere);
            }
        }
        let Some(number) = port.node_port.and_then(number) else {
            continue;
        };
        // A service with no endpoint at all is refused to everybody alike, whatever its policy.
        if own_endpoints_only && !anywhere.is_empty() {
            let here = backends(port, slices, |address| node.hosts(address));
            add(At::Node(Clients::Own), number, &anywhere);
            add(At::Node(Clients::Elsewhere), number, &here);
        } else {
            add(At::Node(Clients::All), number, &anywhere);
        }
    }
    all
}

/// Ready endpoints among those wanted; when none is ready, those that still serve while terminating.
fn backends(
    port: &ServicePort,
    slices: &[&EndpointSlice],
    wanted: impl Fn(Ipv4Addr) -> bool,
) -> BTreeSet<(Ipv4Addr, u16)> {
    let mut ready = BTreeSet::new();
    let mut terminating = BTreeSet::new();
    for slice in slices {
        let Some(target) = slice
            .ports
            .iter()
            .flatten()
            .find(|p| {
                p.name.as_deref().unwrap_or_default() == port.name.as_deref().unwrap_or_default()
            })
            .and_then(|p| number(p.port?))
        else {
            continue;
        };
        for endpoint in slice.endpoints.iter().flatten() {
            let conditions = endpoint.conditions.as_ref();
            let is_ready = conditions.and_then(|c| c.ready).unwrap_or(true);
            let serves_yet =
                conditions.is_some_and(|c| c.serving == Some(true) && c.terminating == Some(true));
            let group = if is_ready {
                &mut ready
            } else if serves_yet {
                &mut terminating
            } else {
                continue;
            };
            let addresses = endpoint.addresses.iter().filter_map(|a| a.parse().ok());
            group.extend(addresses.filter(|a| wanted(*a)).map(|a| (a, target)));
        }
    }
    if ready.is_empty() { terminating } else { ready }
}

/// A port as the API has it; 0 is none.
fn number(port: i32) -> Option<u16> {
    u16::try_from(port).ok().filter(|port| *port != 0)
}

fn protocol(name: Option<&str>) -> Option<Protocol> {
    match name {
        None | Some("TCP") => Some(Protocol::Tcp),
        Some("UDP") => Some(Protocol::Udp),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
