//! The objects that Meshgate itself consists of, as ordinary YAML.

use std::net::{IpAddr, SocketAddr};

use meshgate_api::names;

/// What differs from cluster to cluster.
#[derive(Debug, Clone)]
pub struct ManifestOptions {
    /// Where proxies reach push, identity and quota: "HOST:PORT".
    pub control: String,
    /// Address of the control plane behind the Service `meshgate-control`.
    pub control_address: IpAddr,
    /// The cluster's CA, for the API server to verify the webhook.
    pub cluster_ca_pem: String,
    /// Image of the edge.
    pub image: String,
    /// Replicas of the edge.
    pub edge_replicas: u32,
    /// Where the edge listens.
    pub edge_listeners: EdgeListeners,
    /// SPIFFE trust domain.
    pub trust_domain: String,
}

/// Where the edge gets its listening sockets from.
#[derive(Debug, Clone)]
pub enum EdgeListeners {
    /// Handed over by the host (`meshgate up`).
    HostSockets,
    /// Bound by each replica in its own network.
    Own {
        /// Plain HTTP.
        http: SocketAddr,
        /// TLS.
        https: SocketAddr,
    },
}

impl Default for ManifestOptions {
    fn default() -> Self {
        Self {
            control: format!("{}:{}", names::CONTROL_ADDRESS, names::PORT_PUSH),
            control_address: names::CONTROL_ADDRESS.into(),
            cluster_ca_pem: String::new(),
            image: names::SELF_IMAGE.into(),
            edge_replicas: 1,
            edge_listeners: EdgeListeners::HostSockets,
            trust_domain: names::TRUST_DOMAIN.into(),
        }
    }
}

/// All of them in the order in which they must be applied, as multi-document YAML.
pub fn manifests(options: &ManifestOptions) -> String {
    let _ = options;
    String::new()
}
