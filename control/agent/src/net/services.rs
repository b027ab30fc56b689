//! Service addresses as nf_tables rules. Pure: services and endpoints in, a table out.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use meshgate_api::names;
use meshgate_netfilter::{
    ChainType, Hook, Match, PRIORITY_DSTNAT, PRIORITY_FILTER, PRIORITY_SRCNAT, Protocol, Rule,
    Table, Target,
};

use super::slices::Slices;

/// Packets of a pod that reached itself through a service carry this mark and get the node's address as source: the
/// reply must come back here to be translated.
const HAIRPIN_MARK: u32 = 0x4000;
/// Services beyond this many ports are refused with a log line: the rules are a list, and the kernel walks it for each
/// new connection.
pub(super) const PORTS_MAX: usize = 10_000;

/// One address and port of a service and where it leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frontend {
    pub(super) address: Ipv4Addr,
    pub(super) port: u16,
    pub(super) protocol: Protocol,
    pub(super) backends: BTreeSet<(Ipv4Addr, u16)>,
}

/// Every address and port that services have, with their live backends. `slices` may be of any service.
pub(super) fn frontends<'a>(
    services: impl IntoIterator<Item = &'a Service>,
    slices: &Slices<'_>,
) -> Vec<Frontend> {
    let mut all: Vec<Frontend> = services
        .into_iter()
        .flat_map(|service| service_frontends(service, slices.of(service)))
        .collect();
    all.sort_by_key(|f| (f.address, f.port, f.protocol));
    all
}

fn service_frontends(service: &Service, slices: &[&EndpointSlice]) -> Vec<Frontend> {
    let Some(spec) = &service.spec else {
        return Vec::new();
    };
    let addresses = spec
        .cluster_ip
        .iter()
        .chain(spec.external_ips.iter().flatten())
        .filter_map(|ip| ip.parse().ok());
    let ports = spec.ports.as_deref().unwrap_or_default();
    addresses
        .flat_map(|address| ports.iter().map(move |port| (address, port)))
        .filter_map(|(address, port)| {
            Some(Frontend {
                address,
                port: u16::try_from(port.port).ok()?,
                protocol: protocol(port.protocol.as_deref())?,
                backends: backends(port, slices),
            })
        })
        .collect()
}

/// Ready endpoints; when none is ready, those that still serve while terminating.
fn backends(port: &ServicePort, slices: &[&EndpointSlice]) -> BTreeSet<(Ipv4Addr, u16)> {
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
            .and_then(|p| u16::try_from(p.port?).ok())
        else {
            continue;
        };
        for endpoint in slice.endpoints.iter().flatten() {
            let conditions = endpoint.conditions.as_ref();
            let is_ready = conditions.and_then(|c| c.ready).unwrap_or(true);
            let serves_yet =
                conditions.is_some_and(|c| c.serving == Some(true) && c.terminating == Some(true));
            let wanted = if is_ready {
                &mut ready
            } else if serves_yet {
                &mut terminating
            } else {
                continue;
            };
            wanted.extend(
                endpoint
                    .addresses
                    .iter()
                    .filter_map(|a| Some((a.parse().ok()?, target))),
            );
        }
    }
    if ready.is_empty() { terminating } else { ready }
}

fn protocol(name: Option<&str>) -> Option<Protocol> {
    match name {
        None | Some("TCP") => Some(Protocol::Tcp),
        Some("UDP") => Some(Protocol::Udp),
        _ => None,
    }
}

/// The node's rules for these frontends. The address of the DNS service is served by the node itself and has none.
pub(super) fn table(frontends: &[Frontend], gateway: Ipv4Addr) -> Table {
    let mut table = Table::new("meshgate");
    table.chain("services");
    table.chain("unserved");
    let translated = frontends
        .iter()
        .filter(|f| f.address != names::DNS_SERVICE_ADDRESS)
        .take(PORTS_MAX);
    let mut chains = BTreeSet::new();
    for frontend in translated.clone().filter(|f| !f.backends.is_empty()) {
        let chain = chain_name(frontend);
        if chains.insert(chain.clone()) {
            table.chain(&chain);
            balance(&mut table, &chain, frontend);
        }
    }
    hooks(&mut table, gateway);
    for frontend in translated {
        let (chain, target) = if !frontend.backends.is_empty() {
            ("services", Target::Jump(chain_name(frontend)))
        } else if frontend.protocol == Protocol::Tcp {
            ("unserved", Target::RejectTcp)
        } else {
            ("unserved", Target::RejectUnreachable)
        };
        table.rule(
            chain,
            Rule::new(target)
                .when(Match::Destination(frontend.address, 32))
                .when(Match::Protocol(frontend.protocol))
                .when(Match::DestinationPort(frontend.port, frontend.port)),
        );
    }
    table
}

fn hooks(table: &mut Table, gateway: Ipv4Addr) {
    for (name, hook) in [("prerouting", Hook::Prerouting), ("output", Hook::Output)] {
        table.base_chain(name, hook, ChainType::Nat, PRIORITY_DSTNAT);
        table.rule(name, Rule::new(Target::Jump("services".to_owned())));
    }
    for (name, hook) in [
        ("reject-forward", Hook::Forward),
        ("reject-output", Hook::Output),
    ] {
        table.base_chain(name, hook, ChainType::Filter, PRIORITY_FILTER);
        table.rule(name, Rule::new(Target::Jump("unserved".to_owned())));
    }
    table.base_chain(
        "postrouting",
        Hook::Postrouting,
        ChainType::Nat,
        PRIORITY_SRCNAT,
    );
    table.rule(
        "postrouting",
        Rule::new(Target::Snat(gateway)).when(Match::Mark(HAIRPIN_MARK)),
    );
}

/// Each backend with the same chance: the first takes one in n, the next one in n-1 of the rest, the last all.
fn balance(table: &mut Table, chain: &str, frontend: &Frontend) {
    let count = frontend.backends.len();
    for (i, (address, port)) in frontend.backends.iter().enumerate() {
        let left = u32::try_from(count - i).expect("backends of one service are fewer than 2^32");
        let name = format!("{chain}-{i}");
        table.chain(&name);
        table.rule(
            &name,
            Rule::new(Target::SetMark(HAIRPIN_MARK)).when(Match::Source(*address, 32)),
        );
        let dnat =
            Rule::new(Target::Dnat(*address, *port)).when(Match::Protocol(frontend.protocol));
        table.rule(&name, dnat);
        let mut jump = Rule::new(Target::Jump(name));
        if left > 1 {
            jump = jump.when(Match::OneIn(left));
        }
        table.rule(chain, jump);
    }
}

fn chain_name(frontend: &Frontend) -> String {
    let protocol = match frontend.protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    };
    format!("{protocol}-{}-{}", frontend.address, frontend.port)
}
