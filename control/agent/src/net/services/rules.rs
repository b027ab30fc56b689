//! Frontends as nf_tables rules. Pure: frontends in, a table out.
//!
//! Node ports are those of [`NodeNetworkConfig::addresses`] and of nothing else. Deliberately absent: node ports at
//! loopback addresses, as in Kubernetes' nf_tables mode; their packets could not leave the node.

use std::collections::BTreeSet;

use meshgate_api::names;
use meshgate_netfilter::{
    ChainType, Hook, Match, PRIORITY_DSTNAT, PRIORITY_FILTER, PRIORITY_SRCNAT, Protocol, Rule,
    Table, Target,
};

use super::{At, Clients, Frontend};
use crate::net::{NodeNetworkConfig, PodAddress};

/// Packets of a pod that reached itself through a service carry this mark and get the node's address as source: the
/// reply must come back here to be translated.
const HAIRPIN_MARK: u32 = 0x4000;
/// Packets through a node port carry this mark, and get the node's address as source when they leave for an endpoint
/// elsewhere: it would answer the client directly, who never spoke to it.
const NODE_PORT_MARK: u32 = 0x8000;
/// Services beyond this many ports are refused with a log line: the rules are a list, and the kernel walks it for each
/// new connection.
pub(in crate::net) const PORTS_MAX: usize = 10_000;

const SERVICES: &str = "services";
const NODE_PORTS: &str = "node-ports";
/// Node ports as the node and its pods see them, where that differs.
const NODE_PORTS_OWN: &str = "node-ports-own";
const UNSERVED: &str = "unserved";
const UNSERVED_NODE_PORTS: &str = "unserved-node-ports";

/// The node's rules for these frontends. The address of the DNS service is served by the node itself and has none.
pub(in crate::net) fn table(frontends: &[Frontend], node: NodeNetworkConfig) -> Table {
    let mut table = Table::new("meshgate");
    for chain in [
        SERVICES,
        NODE_PORTS,
        NODE_PORTS_OWN,
        UNSERVED,
        UNSERVED_NODE_PORTS,
    ] {
        table.chain(chain);
    }
    let translated = frontends
        .iter()
        .filter(|f| f.at != At::Address(names::DNS_SERVICE_ADDRESS))
        .take(PORTS_MAX);
    let mut chains = BTreeSet::new();
    for frontend in translated.clone().filter(|f| !f.backends.is_empty()) {
        let chain = chain_name(frontend);
        if chains.insert(chain.clone()) {
            table.chain(&chain);
            balance(&mut table, &chain, frontend);
        }
    }
    hooks(&mut table, node);
    to_node_ports(&mut table, node);
    for frontend in translated {
        let (chain, rule) = entry(frontend);
        table.rule(chain, rule);
    }
    table
}

fn hooks(table: &mut Table, node: NodeNetworkConfig) {
    for (name, hook) in [("prerouting", Hook::Prerouting), ("output", Hook::Output)] {
        table.base_chain(name, hook, ChainType::Nat, PRIORITY_DSTNAT);
        table.rule(name, jump(SERVICES));
    }
    for (name, hook) in [
        ("reject-forward", Hook::Forward),
        ("reject-output", Hook::Output),
    ] {
        table.base_chain(name, hook, ChainType::Filter, PRIORITY_FILTER);
        table.rule(name, jump(UNSERVED));
    }
    table.base_chain(
        "reject-input",
        Hook::Input,
        ChainType::Filter,
        PRIORITY_FILTER,
    );
    table.base_chain(
        "postrouting",
        Hook::Postrouting,
        ChainType::Nat,
        PRIORITY_SRCNAT,
    );
    table.rule(
        "postrouting",
        Rule::new(Target::Snat(node.gateway())).when(Match::Mark(HAIRPIN_MARK)),
    );
    table.rule(
        "postrouting",
        Rule::new(Target::Snat(node.gateway()))
            .when(Match::Mark(NODE_PORT_MARK))
            .when(Match::NotDestination(
                node.pod_network(),
                PodAddress::PREFIX,
            )),
    );
}

/// What is for the node goes through its node ports: before the services' addresses, whose list is longer.
fn to_node_ports(table: &mut Table, node: NodeNetworkConfig) {
    for address in node.addresses() {
        let to_node = Match::Destination(address, 32);
        table.rule(SERVICES, jump(NODE_PORTS).when(to_node.clone()));
        table.rule("reject-input", jump(UNSERVED_NODE_PORTS).when(to_node));
    }
    let of_pods = Match::Source(node.pod_network(), PodAddress::PREFIX);
    for own in [of_pods, Match::Source(node.address, 32)] {
        table.rule(NODE_PORTS, jump(NODE_PORTS_OWN).when(own));
    }
}

/// The rule that takes a frontend's packets, and the chain that it is for.
fn entry(frontend: &Frontend) -> (&'static str, Rule) {
    let served = !frontend.backends.is_empty();
    let chain = match (frontend.at, served) {
        (At::Address(_), true) => SERVICES,
        (At::Address(_), false) => UNSERVED,
        (At::Node(Clients::Own), true) => NODE_PORTS_OWN,
        (At::Node(_), true) => NODE_PORTS,
        (At::Node(_), false) => UNSERVED_NODE_PORTS,
    };
    let target = match (served, frontend.at, frontend.protocol) {
        (true, ..) => Target::Jump(chain_name(frontend)),
        // It is served, but elsewhere: the client should try another node, not give up.
        (false, At::Node(Clients::Elsewhere), _) => Target::Drop,
        (false, _, Protocol::Tcp) => Target::RejectTcp,
        (false, _, Protocol::Udp) => Target::RejectUnreachable,
    };
    let mut rule = Rule::new(target);
    if let At::Address(address) = frontend.at {
        rule = rule.when(Match::Destination(address, 32));
    }
    let rule = rule
        .when(Match::Protocol(frontend.protocol))
        .when(Match::DestinationPort(frontend.port, frontend.port));
    (chain, rule)
}

/// Each backend with the same chance: the first takes one in n, the next one in n-1 of the rest, the last all.
fn balance(table: &mut Table, chain: &str, frontend: &Frontend) {
    if frontend.at == At::Node(Clients::All) {
        table.rule(chain, Rule::new(Target::SetMark(NODE_PORT_MARK)));
    }
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
        let mut rule = jump(&name);
        if left > 1 {
            rule = rule.when(Match::OneIn(left));
        }
        table.rule(chain, rule);
    }
}

fn jump(chain: &str) -> Rule {
    Rule::new(Target::Jump(chain.to_owned()))
}

fn chain_name(frontend: &Frontend) -> String {
    let protocol = match frontend.protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    };
    let at = match frontend.at {
        At::Address(address) => address.to_string(),
        At::Node(Clients::All) => "node".to_owned(),
        At::Node(Clients::Own) => "node-own".to_owned(),
        At::Node(Clients::Elsewhere) => "node-elsewhere".to_owned(),
    };
    format!("{protocol}-{at}-{}", frontend.port)
}
