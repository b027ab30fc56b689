//! What a sidecar must know of its own pod.

use ipnet::IpNet;
use meshgate_api::push as wire;
use meshgate_routing::WorkloadId;
use meshgate_routing::permit::access::{AccessFrom, AccessTo};
use meshgate_routing::permit::{AccessRule, AccessRules};

use super::{Invalid, each, known, parsed, path_match, port};
use crate::snapshot::{Mtls, Workload};

/// Converts a workload.
pub fn workload(wire: wire::Workload) -> Result<Workload, Invalid> {
    let identity =
        WorkloadId::parse(&wire.identity).map_err(|why| Invalid::new("identity", why))?;
    Ok(Workload {
        identity: Some(identity),
        mtls: mtls(wire.mtls)?,
        port_mtls: each("ports", wire.ports, |exception| {
            Ok((port("port", exception.port)?, mtls(exception.mtls)?))
        })?,
        access: AccessRules {
            enforced: wire.authorization,
            rules: each("rules", wire.rules, rule)?,
        },
    })
}

fn mtls(value: i32) -> Result<Mtls, Invalid> {
    Ok(match known::<wire::workload::Mtls>("mtls", value)? {
        wire::workload::Mtls::Permissive => Mtls::Permissive,
        wire::workload::Mtls::Strict => Mtls::Strict,
    })
}

fn rule(wire: wire::AccessRule) -> Result<AccessRule, Invalid> {
    Ok(AccessRule {
        deny: wire.deny,
        from: each("from", wire.from, from)?,
        to: each("to", wire.to, to)?,
        origin: wire.origin.into(),
        audit: wire.audit,
    })
}

fn from(wire: wire::AccessFrom) -> Result<AccessFrom, Invalid> {
    let block = |text: String| parsed::<IpNet>("", &text);
    Ok(AccessFrom {
        identities: wire.identities,
        namespaces: wire.namespaces,
        ip_blocks: each("ip_blocks", wire.ip_blocks, block)?,
        not_ip_blocks: each("not_ip_blocks", wire.not_ip_blocks, block)?,
    })
}

fn to(wire: wire::AccessTo) -> Result<AccessTo, Invalid> {
    Ok(AccessTo {
        methods: wire.methods,
        paths: each("paths", wire.paths, path_match)?,
        hosts: wire.hosts,
        ports: each("ports", wire.ports, |value| port("", value))?,
    })
}
