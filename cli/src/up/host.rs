//! What a cluster takes from the host: a folder, listening sockets, certificates.

use std::fs::{File, OpenOptions};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use anyhow::Context;
use meshgate_agent::net::cluster as network;
use meshgate_api::names;
use meshgate_certs::cluster::{ClusterPki, ClusterPkiOptions};

use crate::args::UpArgs;
use crate::cluster::{Cluster, Lock, leftovers};
use crate::supervisor::spec::node_name;

/// Makes and locks the data directory, clears what a crash left, and empties it if asked.
pub(super) fn take_data_dir(cluster: &Cluster, fresh: bool) -> anyhow::Result<Lock> {
    make_private(&cluster.data_dir)?;
    let lock = Lock::take(&cluster.data_dir)?;
    leftovers::remove_cgroups(&cluster.cgroup())?;
    if fresh {
        empty(&cluster.data_dir)?;
    }
    make_private(&cluster.logs())?;
    Ok(lock)
}

fn make_private(dir: &Path) -> anyhow::Result<()> {
    if let Some(above) = dir.parent() {
        std::fs::create_dir_all(above)
            .with_context(|| format!("cannot make the folder {}", above.display()))?;
    }
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .with_context(|| format!("cannot make the folder {}", dir.display()))
}

/// All but the lock, which is held.
fn empty(dir: &Path) -> anyhow::Result<()> {
    let known = |name: &std::ffi::OsStr| name != "lock";
    for entry in std::fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))? {
        let entry = entry?;
        if !known(&entry.file_name()) {
            continue;
        }
        let path = entry.path();
        let removed = if entry.file_type()?.is_dir() {
            std::fs::remove_dir_all(&path)
        } else {
            std::fs::remove_file(&path)
        };
        removed.with_context(|| format!("cannot remove {}", path.display()))?;
    }
    Ok(())
}

pub(super) fn open_log(cluster: &Cluster) -> anyhow::Result<File> {
    let path = cluster.logs().join("cluster.log");
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .with_context(|| format!("cannot open the log {}", path.display()))
}

/// Listening sockets in the host's network; handed over to the cluster by descriptor.
#[derive(Debug)]
pub(super) struct Sockets {
    pub(super) api: TcpListener,
    pub(super) api_address: SocketAddr,
    pub(super) http: Option<TcpListener>,
    pub(super) https: Option<TcpListener>,
}

impl Sockets {
    pub(super) fn open(args: &UpArgs) -> anyhow::Result<Sockets> {
        let api = listen("--api", args.api)?;
        let api_address = api.local_addr()?;
        let edge = args.nodes > 0;
        Ok(Sockets {
            api,
            api_address,
            http: edge.then(|| listen("--http", args.http)).transpose()?,
            https: edge.then(|| listen("--https", args.https)).transpose()?,
        })
    }

    pub(super) fn http_address(&self) -> Option<SocketAddr> {
        self.http.as_ref().and_then(|s| s.local_addr().ok())
    }

    pub(super) fn https_address(&self) -> Option<SocketAddr> {
        self.https.as_ref().and_then(|s| s.local_addr().ok())
    }

    /// Addresses that Ingresses show as theirs. One that stands for all of the machine's shows as loopback.
    pub(super) fn edge_addresses(&self) -> Vec<IpAddr> {
        let mut addresses: Vec<IpAddr> = [self.http_address(), self.https_address()]
            .into_iter()
            .flatten()
            .map(|address| match address.ip() {
                IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
                IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(std::net::Ipv6Addr::LOCALHOST),
                ip => ip,
            })
            .collect();
        addresses.dedup();
        addresses
    }
}

fn listen(flag: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).map_err(|error| {
        let remedy = match error.kind() {
            std::io::ErrorKind::AddrInUse => "is taken: stop what listens there, or choose another",
            std::io::ErrorKind::PermissionDenied => {
                "needs more rights: choose a port of 1024 or above"
            }
            std::io::ErrorKind::AddrNotAvailable => "is no address of this machine: choose another",
            _ => "cannot be listened on: choose another",
        };
        anyhow::anyhow!(
            "{address} {remedy} with {flag} ADDR:PORT (port 0 picks a free one): {error}"
        )
    })
}

/// The cluster's CA, and certificates and kubeconfigs of everybody in it: made at first start, then kept and renewed.
pub(super) fn certificates(
    cluster: &Cluster,
    args: &UpArgs,
    sockets: &Sockets,
) -> anyhow::Result<()> {
    let inside = if args.nodes > 0 {
        format!("https://{}:{}", names::CONTROL_ADDRESS, names::PORT_API)
    } else {
        format!("https://{}", reachable(sockets.api_address))
    };
    let nodes = (0..args.nodes)
        .map(|index| (node_name(index), IpAddr::V4(network::node_address(index))))
        .collect();
    ClusterPki::ensure(
        &cluster.data_dir,
        &ClusterPkiOptions {
            api_addresses: vec![reachable(sockets.api_address).ip()],
            api_names: Vec::new(),
            api_url_host: format!("https://{}", reachable(sockets.api_address)),
            api_url_inside: inside,
            cluster_name: format!("meshgate-{}", cluster.name),
            nodes,
        },
    )
    .context("the cluster's certificates")?;
    Ok(())
}

/// Where a socket that listens on every address is reached from this machine.
pub(super) fn reachable(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => {
            (std::net::Ipv4Addr::LOCALHOST, address.port()).into()
        }
        IpAddr::V6(ip) if ip.is_unspecified() => {
            (std::net::Ipv6Addr::LOCALHOST, address.port()).into()
        }
        _ => address,
    }
}
