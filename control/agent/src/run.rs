//! An agent's life: options, start, the tasks it owns, its end.

use std::net::IpAddr;
use std::path::PathBuf;

use tokio_util::sync::CancellationToken;

/// What an agent must be told.
#[derive(Debug, Clone)]
pub struct Options {
    /// Name of its Node object.
    pub node_name: String,
    /// Number of the node, from 0: decides the pods' addresses.
    pub index: u8,
    /// The node's address on the network that joins the nodes.
    pub address: IpAddr,
    /// How to reach the API server.
    pub kubeconfig: PathBuf,
    /// This node's lasting files: records of pods, volumes, logs.
    pub data_dir: PathBuf,
    /// The image store that all nodes of the machine share.
    pub images_dir: PathBuf,
    /// Ephemeral files: sockets, namespaces, secrets. Belongs on a tmpfs.
    pub run_dir: PathBuf,
    /// Parent of the pods' control groups, from the root of each hierarchy, such as `/meshgate-default/node-0`.
    pub cgroup_parent: String,
    /// The binary to run shims from, and the content of the image `meshgate/meshgate`.
    pub self_exe: PathBuf,
    /// Serving certificate of the agent's HTTPS API.
    pub serving_cert: PathBuf,
    /// Its key.
    pub serving_key: PathBuf,
    /// CA of the clients that may call the agent's API.
    pub client_ca: PathBuf,
}

/// Why an agent could not run.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// An option cannot be used.
    #[error("{0}")]
    Option(String),
}

/// Runs a node until `shutdown`. Pods live on when it returns.
pub async fn run(_options: Options, shutdown: CancellationToken) -> Result<(), AgentError> {
    shutdown.cancelled().await;
    Ok(())
}
