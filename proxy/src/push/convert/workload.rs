//! What a sidecar must know of its own pod.

use meshgate_api::push as wire;
use meshgate_routing::WorkloadId;
use meshgate_routing::permit::AccessRules;

use super::{Invalid, access, each, known, port};
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
            rules: each("rules", wire.rules, access::rule)?,
        },
    })
}

fn mtls(value: i32) -> Result<Mtls, Invalid> {
    Ok(match known::<wire::workload::Mtls>("mtls", value)? {
        wire::workload::Mtls::Permissive => Mtls::Permissive,
        wire::workload::Mtls::Strict => Mtls::Strict,
    })
}
