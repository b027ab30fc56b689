//! The network that joins the control plane and the nodes of one machine: a bridge in the cluster's own namespace.

use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::path::Path;

use meshgate_api::names;

use super::link::{Link, Via};
use super::{NetworkError, PodAddress, namespace, pod_network};

const BRIDGE: &str = "nodes";
const UPLINK: &str = "uplink";
const PREFIX: u8 = 24;

/// Address of node `index` on the network that joins the nodes.
pub fn node_address(index: u8) -> Ipv4Addr {
    Ipv4Addr::from_bits(names::CONTROL_ADDRESS.to_bits() + 9 + u32::from(index))
}

/// Brings up the control plane's end, in the calling thread's namespace.
pub async fn up() -> Result<(), NetworkError> {
    let link = connect()?;
    link.up("lo").await?;
    link.add_bridge(BRIDGE, names::CONTROL_ADDRESS).await?;
    link.add_address(BRIDGE, names::CONTROL_ADDRESS, PREFIX)
        .await?;
    link.up(BRIDGE).await
}

/// Makes the namespace of node `index` at `netns` and connects it.
pub async fn add_node(index: u8, netns: &Path) -> Result<(), NetworkError> {
    namespace::create(netns)?;
    let port = format!("node{index}");
    let file = File::open(netns).map_err(|source| NetworkError::Setting {
        path: "the node's namespace",
        source,
    })?;
    let link = connect()?;
    // The port itself has no address; one that no node has gives it a hardware address of its own.
    let unused = Ipv4Addr::from_bits(node_address(index).to_bits() + 128);
    link.add_pair(&port, unused, UPLINK, file.as_raw_fd())
        .await?;
    link.attach_to_bridge(&port, BRIDGE).await?;
    let inside = netns.to_owned();
    tokio::task::spawn_blocking(move || namespace::enter(&inside, move || uplink(index)))
        .await
        .unwrap_or_else(|panic| Err(super::NamespaceError::panicked(&panic)))??;
    link.add_route(
        pod_network(index),
        PodAddress::PREFIX,
        Via::Gateway(node_address(index)),
        None,
    )
    .await
}

fn uplink(index: u8) -> Result<(), NetworkError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .map_err(|source| NetworkError::Setting {
            path: "a runtime for netlink",
            source,
        })?;
    runtime.block_on(async {
        let link = connect()?;
        link.up("lo").await?;
        link.add_address(UPLINK, node_address(index), PREFIX)
            .await?;
        // What comes to a node port may go back out to another node, on purpose: nobody must be told a shorter way.
        super::set("/proc/sys/net/ipv4/conf/uplink/send_redirects", "0")?;
        link.up(UPLINK).await
    })
}

fn connect() -> Result<Link, NetworkError> {
    Link::connect().map_err(|source| NetworkError::Link {
        step: "opening netlink".to_owned(),
        source,
    })
}
