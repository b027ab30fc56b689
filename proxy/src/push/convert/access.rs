//! Who may ask what.

use std::net::IpAddr;

use ipnet::IpNet;
use meshgate_api::push as wire;
use meshgate_routing::permit::AccessRule;
use meshgate_routing::permit::access::{AccessFrom, AccessTo};
use meshgate_routing::route::HostName;

use super::{Invalid, each, parsed, path_match, port};

/// What an IPv4 address has before it as an IPv6 one: `::ffff:0:0/96`.
const MAPPED_BITS: u8 = 96;

/// Converts a rule.
pub(super) fn rule(wire: wire::AccessRule) -> Result<AccessRule, Invalid> {
    Ok(AccessRule {
        deny: wire.deny,
        from: each("from", wire.from, from)?,
        to: each("to", wire.to, to)?,
        origin: wire.origin.into(),
        audit: wire.audit,
    })
}

fn from(wire: wire::AccessFrom) -> Result<AccessFrom, Invalid> {
    let block = |text: String| block(&text);
    Ok(AccessFrom {
        identities: wire.identities,
        namespaces: wire.namespaces,
        ip_blocks: each("ip_blocks", wire.ip_blocks, block)?,
        not_ip_blocks: each("not_ip_blocks", wire.not_ip_blocks, block)?,
    })
}

/// A network or one address; clients of IPv4 are never seen by their addresses in IPv6.
fn block(text: &str) -> Result<IpNet, Invalid> {
    let block = match text.parse::<IpAddr>() {
        Ok(address) => IpNet::from(address),
        Err(_) => parsed::<IpNet>("", text)?,
    };
    let mapped = block.addr().to_canonical();
    let bits = block.prefix_len().checked_sub(MAPPED_BITS);
    Ok(match (block.addr(), mapped, bits) {
        (IpAddr::V6(_), IpAddr::V4(_), Some(bits)) => {
            IpNet::new(mapped, bits).map_err(|why| Invalid::new("", why))?
        }
        _ => block,
    })
}

fn to(wire: wire::AccessTo) -> Result<AccessTo, Invalid> {
    Ok(AccessTo {
        methods: wire.methods,
        paths: each("paths", wire.paths, path_match)?,
        hosts: each("hosts", wire.hosts, |text| host(&text))?,
        ports: each("ports", wire.ports, |value| port("", value))?,
    })
}

/// In a list of hosts an empty one is a mistake, not every host.
fn host(text: &str) -> Result<HostName, Invalid> {
    if text.is_empty() {
        return Err(Invalid::new("", "empty"));
    }
    HostName::parse(text).map_err(|why| Invalid::new("", why))
}
