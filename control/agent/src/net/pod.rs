//! The pod's end of its connection to the node.

use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::path::Path;

use super::link::{Link, Via};
use super::{NamespaceError, NetworkError, PodAddress, namespace};

/// Name of the interface in every pod.
const POD_INTERFACE: &str = "eth0";

/// Name of the node's end: at most 15 bytes, the same for one pod whoever asks.
pub(super) fn port_name(pod_uid: &str) -> String {
    let mut hasher = DefaultHasher::new();
    pod_uid.hash(&mut hasher);
    format!("p{:012x}", hasher.finish() & 0xffff_ffff_ffff)
}

/// Makes both ends, the pod's with address and routes. Idempotent.
pub(super) async fn connect(netns: &Path, port: &str, pod: PodAddress) -> Result<(), NetworkError> {
    let netns = netns.to_owned();
    let port = port.to_owned();
    // Blocking: a thread that enters the pod's namespace, and a netlink conversation of about a millisecond.
    tokio::task::spawn_blocking(move || {
        let node =
            File::open("/proc/thread-self/ns/net").map_err(|source| NetworkError::Setting {
                path: "/proc/thread-self/ns/net",
                source,
            })?;
        namespace::enter(&netns, move || inside(&node, &port, pod))?
    })
    .await
    .unwrap_or_else(|panic| Err(NetworkError::Namespace(NamespaceError::panicked(&panic))))
}

fn inside(node: &File, port: &str, pod: PodAddress) -> Result<(), NetworkError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .map_err(|source| NetworkError::Setting {
            path: "a runtime for netlink",
            source,
        })?;
    // Any user of a pod may listen on any port, as container runtimes have it.
    super::set("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0")?;
    runtime.block_on(async {
        let link = Link::connect().map_err(|source| NetworkError::Link {
            step: "opening netlink in the pod".to_owned(),
            source,
        })?;
        link.up("lo").await?;
        if link.index(POD_INTERFACE).await.is_err() {
            link.add_pair(POD_INTERFACE, pod.address, port, node.as_raw_fd())
                .await?;
        }
        link.add_address(POD_INTERFACE, pod.address, 32).await?;
        link.up(POD_INTERFACE).await?;
        link.add_route(pod.gateway, 32, Via::Device(POD_INTERFACE), None)
            .await?;
        link.add_route(
            Ipv4Addr::UNSPECIFIED,
            0,
            Via::OnLink(POD_INTERFACE, pod.gateway),
            Some(pod.address),
        )
        .await
    })
}
