//! The node's network: a bridge for its pods, routes to the pods of other nodes, service addresses, node ports and
//! names.
//!
//! Everything lives in the network namespace that the agent was started in; the host's network is never touched.
//! Pods have a /32 and the bridge as their gateway, also towards pods of the same node: so every packet between pods
//! passes the node's IP stack, and a reply always finds the address translation of its request.

mod address;
pub mod cluster;
mod dns;
mod link;
pub mod namespace;
mod pod;
mod services;
mod slices;
mod sync;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use meshgate_api::names;
use tokio_util::sync::CancellationToken;

use address::Addresses;
use link::{Link, LinkError};
pub use namespace::NamespaceError;

/// Name of the node's bridge.
const BRIDGE: &str = "pods";

/// What a node must know of its own network.
#[derive(Debug, Clone, Copy)]
pub struct NodeNetworkConfig {
    /// Number of the node, from 0: decides the pods' addresses.
    pub index: u8,
    /// The node's address on the network that joins the nodes.
    pub address: Ipv4Addr,
}

impl NodeNetworkConfig {
    /// First address of the node's pods; the prefix is [`PodAddress::PREFIX`].
    pub fn pod_network(&self) -> Ipv4Addr {
        pod_network(self.index)
    }

    fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.pod_network().to_bits() + 1)
    }

    /// Where the node itself is reached: by other nodes, and by its pods.
    fn addresses(&self) -> [Ipv4Addr; 2] {
        [self.address, self.gateway()]
    }

    /// Whether a pod with this address runs here, in a network of its own or in the node's.
    fn hosts(&self, pod: Ipv4Addr) -> bool {
        let span = u32::MAX << (32 - PodAddress::PREFIX);
        pod == self.address || pod.to_bits() & span == self.pod_network().to_bits()
    }
}

/// First address of the pods of node `index`, a /24.
pub fn pod_network(index: u8) -> Ipv4Addr {
    Ipv4Addr::from_bits(names::POD_CIDR.0.to_bits() + (u32::from(index) << 8))
}

/// Where a pod is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PodAddress {
    /// The pod's own address.
    pub address: Ipv4Addr,
    /// The node's bridge.
    pub gateway: Ipv4Addr,
    /// Prefix length of the node's pod network.
    pub prefix: u8,
}

impl PodAddress {
    /// Prefix length of a node's pod network.
    pub const PREFIX: u8 = 24;
}

/// The running network of a node.
#[derive(Debug)]
pub struct NodeNetwork {
    config: NodeNetworkConfig,
    addresses: Mutex<Addresses>,
    link: Link,
}

/// Why the network of a node or a pod could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// A step on an interface or route.
    #[error("network: {step}")]
    Link {
        /// What was tried, with its subject.
        step: String,
        /// What the kernel said.
        #[source]
        source: LinkError,
    },
    /// A kernel setting.
    #[error("network: cannot set {path}")]
    Setting {
        /// File below /proc/sys.
        path: &'static str,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
    /// A namespace could not be made or entered.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// No address is left for another pod.
    #[error("network: all {0} pod addresses of the node are in use")]
    AddressesUsedUp(usize),
}

impl NodeNetwork {
    /// Brings the node's bridge up. Idempotent: an agent that comes back finds its bridge and leaves pods connected.
    pub async fn up(config: NodeNetworkConfig) -> Result<NodeNetwork, NetworkError> {
        let link = Link::connect().map_err(|source| NetworkError::Link {
            step: "opening netlink".to_owned(),
            source,
        })?;
        forward_packets()?;
        link.up("lo").await?;
        link.add_bridge(BRIDGE, config.gateway()).await?;
        link.add_address(BRIDGE, config.gateway(), 32).await?;
        link.add_address("lo", names::DNS_SERVICE_ADDRESS, 32)
            .await?;
        link.up(BRIDGE).await?;
        // Each pod has a route of its own; who asks for a pod that is gone hears so at once, not after a timeout.
        link.add_route(
            config.pod_network(),
            PodAddress::PREFIX,
            link::Via::Unreachable,
            None,
        )
        .await?;
        // Services' addresses must lead somewhere for the translation, or the refusal, to happen.
        link.add_route(
            names::SERVICE_CIDR.0,
            names::SERVICE_CIDR.1,
            link::Via::Device(BRIDGE),
            None,
        )
        .await?;
        Ok(NodeNetwork {
            config,
            addresses: Mutex::new(Addresses::new(config.pod_network(), PodAddress::PREFIX)),
            link,
        })
    }

    /// Connects the network namespace at `netns` and gives it an address. Idempotent for one `pod_uid`.
    pub async fn attach(&self, netns: &Path, pod_uid: &str) -> Result<PodAddress, NetworkError> {
        let address = self
            .addresses
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take(pod_uid)
            .ok_or(NetworkError::AddressesUsedUp(Addresses::CAPACITY))?;
        let pod = PodAddress {
            address,
            gateway: self.config.gateway(),
            prefix: PodAddress::PREFIX,
        };
        let port = pod::port_name(pod_uid);
        pod::connect(netns, &port, pod).await?;
        self.link.attach_to_bridge(&port, BRIDGE).await?;
        self.link
            .add_route(address, 32, link::Via::Device(BRIDGE), Some(pod.gateway))
            .await?;
        Ok(pod)
    }

    /// Gives the pod's address back and removes its interface, if it is still there.
    pub async fn detach(&self, pod_uid: &str) -> Result<(), NetworkError> {
        let address = self
            .addresses
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .give_back(pod_uid);
        if let Some(address) = address {
            self.link.remove_route(address, 32).await?;
        }
        self.link.remove(&pod::port_name(pod_uid)).await
    }

    /// Takes over the addresses of pods that were running before this agent.
    pub fn adopt(&self, live: &[(String, Ipv4Addr)]) {
        let mut addresses = self
            .addresses
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for (pod_uid, address) in live {
            addresses.adopt(pod_uid, *address);
        }
    }

    /// Keeps routes to other nodes, service addresses, node ports and names true to the API until `shutdown`.
    /// Returns when it was told to, or when a server for names could not be opened.
    pub async fn serve(
        &self,
        client: kube::Client,
        shutdown: CancellationToken,
    ) -> Result<(), NetworkError> {
        sync::run(&self.link, self.config, client, shutdown).await
    }
}

/// An agent's node takes the packets of its pods to others.
fn forward_packets() -> Result<(), NetworkError> {
    set("/proc/sys/net/ipv4/ip_forward", "1")?;
    // Pods on one bridge reach each other through the node on purpose; a redirect would tell them the short way.
    set("/proc/sys/net/ipv4/conf/all/send_redirects", "0")?;
    set("/proc/sys/net/ipv4/conf/default/send_redirects", "0")?;
    // Where the module that shows bridged packets to nf_tables is loaded, it would translate them below the IP stack.
    const BRIDGED: &str = "/proc/sys/net/bridge/bridge-nf-call-iptables";
    match set(BRIDGED, "0") {
        Err(NetworkError::Setting { source, .. })
            if source.kind() == std::io::ErrorKind::NotFound =>
        {
            Ok(())
        }
        other => other,
    }
}

fn set(path: &'static str, value: &str) -> Result<(), NetworkError> {
    std::fs::write(path, value).map_err(|source| NetworkError::Setting { path, source })
}

/// Routes to the pods of other nodes, as found in the API: node address by pod network.
type NodeRoutes = HashMap<(Ipv4Addr, u8), IpAddr>;

#[cfg(test)]
mod tests;
