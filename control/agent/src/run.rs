//! An agent's life: options, start, the tasks it owns, its end.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use kube::Api;
use kube::runtime::watcher;
use meshgate_api::client::{Cache, Recorder};
use meshgate_api::names;
use tokio_util::sync::CancellationToken;

use crate::cgroup::{Cgroups, Limits};
use crate::images::{ImageError, ImageStore, OwnImage, watch_index};
use crate::net::{self, NetworkError, NodeNetwork, NodeNetworkConfig};
use crate::node::{self, Facts};
use crate::paths::Paths;
use crate::pod::{Keeper, MappedIds, Node, NodeFacts};
use crate::server::{self, Served, ServingFiles};
use crate::shim;
use crate::sources::Sources;

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
    /// The node's address is of no use.
    #[error("the node's address {0} is not an IPv4 address")]
    Address(IpAddr),
    /// The API server cannot be reached as the kubeconfig says.
    #[error(transparent)]
    Connect(#[from] meshgate_api::client::ConnectError),
    /// A folder cannot be used.
    #[error("folder {}", path.display())]
    Folder {
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The image store cannot be used.
    #[error(transparent)]
    Images(#[from] ImageError),
    /// The node's network cannot be set up.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The node's API cannot be served.
    #[error("the node's API")]
    Serve(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Runs a node until `shutdown`. Pods live on when it returns.
pub async fn run(options: Options, shutdown: CancellationToken) -> Result<(), AgentError> {
    let IpAddr::V4(address) = options.address else {
        return Err(AgentError::Address(options.address));
    };
    for dir in [&options.data_dir, &options.run_dir] {
        std::fs::create_dir_all(dir).map_err(|source| AgentError::Folder {
            path: dir.clone(),
            source,
        })?;
    }
    tracing::info!(node = options.node_name, address = %address, "agent starting");
    let client = meshgate_api::client::connect(&options.kubeconfig).await?;
    let cgroups = Cgroups::find(&options.cgroup_parent);
    let facts = Facts::read(
        &options.node_name,
        options.address,
        net::pod_network(options.index),
        cgroups.limits().clone(),
    );
    let images = ImageStore::open(&options.images_dir)?;
    let (images_loaded, watch_images) =
        watch_index(&images, shutdown.clone()).map_err(|source| AgentError::Folder {
            path: options.images_dir.clone(),
            source,
        })?;
    let network = NodeNetwork::up(NodeNetworkConfig {
        index: options.index,
        address,
    })
    .await?;
    let network = Arc::new(network);
    let (recorder, events) = Recorder::new(client.clone(), "kubelet", &options.node_name);
    let services = Cache::<Service>::default();
    let node = Arc::new(Node {
        client: client.clone(),
        facts: node_facts(&facts, address),
        address,
        paths: Paths::new(&options.data_dir, &options.run_dir),
        own_image: OwnImage::ensure(&images, &options.self_exe)?,
        images,
        images_loaded,
        network: Arc::clone(&network),
        recorder,
        services: services.clone(),
        sources: Sources::new(client.clone()),
        cgroups,
        binary: options.self_exe.clone(),
        mapped: MappedIds::of_this_process(),
        rootless: shim::in_user_namespace(),
    });
    if let Limits::Absent(why) = node.cgroups.limits() {
        tracing::warn!(
            why,
            "limits of CPU and memory are not enforced on this node"
        );
    }
    let keeper = Keeper::new(Arc::clone(&node));
    let served = Served {
        paths: node.paths.clone(),
        pods: keeper.entries(),
    };
    let files = ServingFiles {
        cert: options.serving_cert.clone(),
        key: options.serving_key.clone(),
        client_ca: options.client_ca.clone(),
    };
    let serve = server::run(
        SocketAddr::new(options.address, names::PORT_AGENT),
        &files,
        served,
        shutdown.clone(),
    );
    let background = async {
        tokio::join!(
            node::run(client.clone(), facts, shutdown.clone()),
            services.run(Api::all(client.clone()), watcher::Config::default()),
            events.run(),
            watch_images,
        );
    };
    // Pods come last to an end: their workers must have let go before the agent returns.
    let mut pods = std::pin::pin!(keeper.run(shutdown.clone()));
    let result = tokio::select! {
        () = &mut pods => return Ok(()),
        () = background => Ok(()),
        result = serve => result.map_err(|error| AgentError::Serve(Box::new(error))),
        result = network.serve(client.clone(), shutdown.clone()) => result.map_err(AgentError::from),
    };
    shutdown.cancel();
    pods.await;
    result
}

fn node_facts(facts: &Facts, address: Ipv4Addr) -> NodeFacts {
    NodeFacts {
        name: facts.name.clone(),
        address: address.to_string(),
        cpu_milli: i64::try_from(facts.cpus).unwrap_or(1) * 1000,
        memory_bytes: i64::try_from(facts.memory_bytes).unwrap_or(i64::MAX),
    }
}
