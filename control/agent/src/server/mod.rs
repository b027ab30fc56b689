//! The node's HTTPS API, as far as the API server uses it: logs, health, metrics, the list of pods.

mod follow;
mod lines;
mod logs;
mod metrics;
mod tls;

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::response::IntoResponse;
use axum::routing::get;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::paths::Paths;
use crate::pod::PodEntry;
pub(crate) use lines::tail;
pub(crate) use tls::ServingFiles;

/// Connections at once; only the API server connects.
const CONNECTIONS_MAX: usize = 512;
/// Longest TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// What requests are answered from.
#[derive(Clone)]
pub(crate) struct Served {
    pub(crate) paths: Paths,
    pub(crate) pods: Arc<Mutex<HashMap<(String, String), PodEntry>>>,
}

/// Why the API could not be served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServeError {
    #[error("cannot listen on {address}")]
    Listen {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error("cannot use {}: {why}", path.display())]
    Certificate { path: PathBuf, why: String },
}

/// Serves until `shutdown`.
pub(crate) async fn run(
    address: SocketAddr,
    files: &ServingFiles,
    served: Served,
    shutdown: CancellationToken,
) -> Result<(), ServeError> {
    let acceptor = tls::acceptor(files)?;
    let listen = |source| ServeError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(listen)?;
    let router = Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/pods", get(pods))
        .route("/metrics", get(metrics::metrics))
        .route(
            "/containerLogs/{namespace}/{pod}/{container}",
            get(logs::logs),
        )
        .with_state(served);
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => accepted,
        };
        let Ok((tcp, _)) = accepted else {
            // Out of descriptors, most likely: others will be closed.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let (acceptor, router) = (acceptor.clone(), router.clone());
        connections.spawn(async move {
            let Ok(Ok(tls)) = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(tcp)).await
            else {
                return;
            };
            if !tls::may_call(&tls) {
                return;
            }
            let service = TowerToHyperService::new(router);
            // An error here is the client's leaving.
            let _ = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(tls), service)
                .await;
        });
    }
}

async fn pods(State(served): State<Served>) -> impl IntoResponse {
    let items: Vec<_> = {
        let entries = served
            .pods
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        entries
            .values()
            .map(|entry| Arc::clone(&entry.pod))
            .collect()
    };
    axum::Json(serde_json::json!({
        "kind": "PodList", "apiVersion": "v1", "metadata": {},
        "items": items.iter().map(|pod| &**pod).collect::<Vec<_>>(),
    }))
}
