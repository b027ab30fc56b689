//! A Kubernetes API server over [`meshgate_store`], driven by the kinds of [`meshgate_schema`].
//!
//! A request's life is in `route`: path, authentication, a place among the requests under way, authorization, then
//! `dispatch` to reading or writing. Objects are whole JSON values throughout: fields that a schema does not know are
//! pruned at the border where Kubernetes prunes them, and nothing else is ever dropped.
//!
//! Invariants:
//! - every object is written by one path: decode, default, admit, validate, compare-and-swap;
//! - what requests are decided from (rights, kinds, addresses, webhooks) follows the store inside each commit, so an
//!   acknowledged write counts for the next request;
//! - no other component is called in-process: controllers, scheduler and agents are clients like any other.

mod admission;
mod aggregation;
mod auth;
mod bootstrap;
mod custom;
mod dispatch;
mod documents;
mod events;
mod health;
mod http;
mod limits;
mod listen;
mod live;
mod metrics;
mod objects;
mod outbound;
mod read;
mod route;
mod server;
mod services;
mod subject;
mod subresource;
mod write;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use meshgate_certs::cluster::{ClusterPki, ClusterPkiError, KeyFiles};
use meshgate_certs::credential::{Credential, CredentialError, CurrentCredential};
use meshgate_schema::Failure;
use meshgate_store::Store;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::auth::{Auth, AuthOptions};
use crate::limits::Gate;
use crate::live::Live;
use crate::metrics::Metrics;
use crate::outbound::Outbound;
use crate::server::Server;
use crate::services::Addresses;

pub use crate::auth::AuthError;
pub use crate::outbound::TlsError;

/// How often the serving certificate is read again: it is renewed long before its end.
const CERTIFICATE_INTERVAL: Duration = Duration::from_secs(3600);

/// What an API server is made of.
#[derive(Debug)]
pub struct Options {
    /// Where objects are kept; no other server may use it.
    pub store: Store,
    /// The cluster's certificates and keys.
    pub pki: ClusterPki,
    /// Where to listen; already open, possibly in another network namespace.
    pub listeners: Vec<std::net::TcpListener>,
    /// Where clients in the cluster's network reach the server: the endpoint of Service `default/kubernetes`.
    pub advertise: SocketAddr,
    /// Addresses of Services: network and prefix length.
    pub service_cidr: (Ipv4Addr, u8),
}

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A key or certificate cannot be read.
    #[error("the API server's keys cannot be read")]
    Pki(#[from] ClusterPkiError),
    /// A file of the cluster's keys.
    #[error("{path} cannot be read")]
    ReadKey {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The serving certificate is of no use.
    #[error("the API server's certificate cannot be used")]
    Credential(#[from] CredentialError),
    /// Authentication cannot be set up.
    #[error("authentication cannot be set up")]
    Auth(#[from] AuthError),
    /// A TLS configuration cannot be made.
    #[error("TLS cannot be set up")]
    Tls(#[from] TlsError),
    /// A listener cannot be used.
    #[error("a listener cannot be used")]
    Listen(#[source] std::io::Error),
    /// The store is already in another server's hands.
    #[error("the store is already used by another API server of this process")]
    StoreTaken,
    /// The cluster's own objects cannot be written.
    #[error("the cluster's first objects cannot be written: {0}")]
    Bootstrap(Failure),
}

/// A server that takes requests.
#[derive(Debug)]
pub struct Running {
    tasks: TaskTracker,
    addresses: Vec<SocketAddr>,
}

impl Running {
    /// Where it listens.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Returns when the server has shut down and its last request has ended.
    pub async fn wait(self) {
        self.tasks.wait().await;
    }
}

/// Starts a server; when this returns it takes requests, until `shutdown`.
pub async fn start(options: Options, shutdown: CancellationToken) -> Result<Running, StartError> {
    let Options {
        store,
        pki,
        listeners,
        advertise,
        service_cidr,
    } = options;
    let auth = Auth::new(&AuthOptions {
        sa_key_pem: read(&pki.sa_key)?,
        client_ca_pem: pki.ca_pem().to_owned(),
    })?;
    let verifier = auth.tls_verifier();
    let (node_certificate, node_key) = pki.kubelet_client.read()?;
    let outbound = Outbound::new(
        pki.ca_pem().as_bytes(),
        node_certificate.as_bytes(),
        node_key.as_bytes(),
    )?;
    let credential = CurrentCredential::new(serving(&pki.api_server)?);
    let tls = listen::tls(verifier, credential.clone()).map_err(TlsError::from)?;
    let live = Arc::new(Live::new(
        auth,
        Addresses::new(service_cidr.0, service_cidr.1),
    ));
    if !live.follow(&store) {
        return Err(StartError::StoreTaken);
    }
    let server = Arc::new(Server {
        store,
        live,
        metrics: Metrics::new(),
        gate: Gate::new(),
        outbound,
        advertise,
        service_network: service_cidr,
        shutdown: shutdown.clone(),
    });
    bootstrap::ensure(&server)
        .await
        .map_err(StartError::Bootstrap)?;
    // Nobody has seen anything older, and a watch from before the start has to list again anyway.
    server.store.compact(server.store.revision());
    let mut adopted = Vec::new();
    let mut addresses = Vec::new();
    for listener in listeners {
        let (listener, address) = listen::adopt(listener).map_err(StartError::Listen)?;
        adopted.push(listener);
        addresses.push(address);
    }
    let tasks = TaskTracker::new();
    tasks.spawn(listen::serve(Arc::clone(&server), adopted, tls));
    tasks.spawn(custom::clean_up(Arc::clone(&server)));
    tasks.spawn(aggregation::keep(Arc::clone(&server)));
    tasks.spawn(auth::write_aggregated_rules(Arc::clone(&server)));
    tasks.spawn(events::expire(server));
    tasks.spawn(refresh_certificate(
        pki.api_server.clone(),
        credential,
        shutdown,
    ));
    tasks.close();
    Ok(Running { tasks, addresses })
}

fn read(path: &std::path::Path) -> Result<String, StartError> {
    std::fs::read_to_string(path).map_err(|source| StartError::ReadKey {
        path: path.to_owned(),
        source,
    })
}

fn serving(files: &KeyFiles) -> Result<Credential, StartError> {
    let (certificate, key) = files.read()?;
    Ok(Credential::from_pem(&certificate, &key)?)
}

/// Takes up a renewed serving certificate; connections that are open keep theirs.
async fn refresh_certificate(
    files: KeyFiles,
    credential: CurrentCredential,
    shutdown: CancellationToken,
) {
    let mut interval = tokio::time::interval(CERTIFICATE_INTERVAL);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = interval.tick() => {}
        }
        match serving(&files) {
            Ok(renewed) => credential.replace(renewed),
            Err(error) => {
                tracing::warn!(%error, "the serving certificate on disk cannot be used; the one before stays")
            }
        }
    }
}
