//! Configuration push: watches the cluster, compiles what each proxy must know, pushes it and reports what is enforced.
//!
//! Also the services proxies need beside configuration: workload certificates, slices of global quotas, and the
//! injector that puts sidecars into pods. A plain API client: it runs against any Kubernetes.

use std::{net::TcpListener, time::Duration};

use tokio_util::sync::CancellationToken;

pub mod inject;
mod manifests;

pub use manifests::{EdgeListeners, ManifestOptions, manifests};

/// What [`run`] needs beside a Kubernetes client.
#[derive(Debug)]
pub struct Options {
    /// Where proxies connect (gRPC over TLS), port 15012 in a cluster.
    pub push_listener: TcpListener,
    /// Where the API server posts admission reviews (HTTPS), port 15017 in a cluster; also serves `/metrics`.
    pub webhook_listener: TcpListener,
    /// Certificate chain of both listeners, signed by the cluster's CA.
    pub serving_cert_pem: String,
    /// Key of `serving_cert_pem`.
    pub serving_key_pem: String,
    /// The cluster's CA (not the mesh's).
    pub cluster_ca_pem: String,
    /// SPIFFE trust domain of workload identities.
    pub trust_domain: String,
    /// Lifetime of workload certificates.
    pub cert_ttl: Duration,
    /// Where clients reach the edge: written into the status of Ingresses of our class.
    pub edge_addresses: Vec<EdgeAddress>,
    /// What the injector puts into pods.
    pub inject: inject::InjectOptions,
}

/// An address of the edge as users see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EdgeAddress {
    /// An IP address.
    Ip(std::net::IpAddr),
    /// A DNS name.
    Hostname(String),
}

/// Why the push part cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The serving certificate or key cannot be used.
    #[error("cannot use the serving certificate")]
    ServingCertificate(#[source] rustls::Error),
}

/// Runs until `shutdown`.
pub async fn run(
    client: kube::Client,
    options: Options,
    shutdown: CancellationToken,
) -> Result<(), RunError> {
    let _ = (client, options);
    shutdown.cancelled().await;
    Ok(())
}
