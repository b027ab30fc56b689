//! Ports of Services with their endpoints.

use std::net::{IpAddr, SocketAddr};

use meshgate_api::push as wire;
use meshgate_routing::WorkloadId;

use super::policy::policy;
use super::{Enforceable, Invalid, each, known, parsed, port};
use crate::service::{EndpointSpec, Policy, Protocol, ServiceSpec};

/// Converts a service; `name` is the resource's. Where TLS to its endpoints cannot be enforced, they are not reached.
pub fn service(name: &str, wire: wire::Service) -> Result<Enforceable<ServiceSpec>, Invalid> {
    let service_port = port("port", wire.port)?;
    let protocol = match known::<wire::service::Protocol>("protocol", wire.protocol)? {
        wire::service::Protocol::Auto => Protocol::Auto,
        wire::service::Protocol::Http1 => Protocol::Http1,
        wire::service::Protocol::Http2 => Protocol::Http2,
        wire::service::Protocol::Tcp => Protocol::Tcp,
    };
    let address = |text: String| {
        let address: IpAddr = parsed("", &text)?;
        Ok(SocketAddr::new(address, service_port))
    };
    let addresses = each("addresses", wire.addresses, address)?;
    let endpoints = each("endpoints", wire.endpoints, endpoint)?;
    let policy = match wire.policy {
        Some(wire) => policy(wire).map_err(|invalid| invalid.within("policy"))?,
        None => Enforceable {
            resource: Policy::default(),
            closed: None,
        },
    };
    Ok(policy.within("policy").map(|policy| ServiceSpec {
        name: name.into(),
        protocol,
        addresses,
        endpoints,
        policy,
    }))
}

fn endpoint(wire: wire::Endpoint) -> Result<EndpointSpec, Invalid> {
    let address: IpAddr = parsed("address", &wire.address)?;
    let identity = match wire.identity.as_str() {
        "" => None,
        uri => Some(WorkloadId::parse(uri).map_err(|why| Invalid::new("identity", why))?),
    };
    Ok(EndpointSpec {
        address: SocketAddr::new(address, port("port", wire.port)?),
        uid: wire.uid.into(),
        pod: wire.pod.into(),
        identity,
        terminating: wire.terminating,
    })
}
