//! Configuration push: watches the cluster, compiles what each proxy must know, pushes it and reports what is enforced.
//!
//! Also the services proxies need beside configuration: workload certificates, slices of global quotas, and the
//! injector that puts sidecars into pods. A plain API client: it runs against any Kubernetes.

mod compile;
mod identity;
pub mod inject;
mod manifests;
mod metrics;
mod objects;
pub mod offline;
mod quota;
mod retry;
mod server;
mod status;
mod table;
mod updater;
mod watch;
mod webhook;
mod xds;

use std::{net::TcpListener, pin::Pin, sync::Arc, time::Duration};

use futures::StreamExt;
use meshgate_api::{
    client::Recorder,
    push::{identity_server::IdentityServer, quota_server::QuotaServer},
};
use meshgate_certs::{
    identity::TrustDomain,
    trust::{Trust, TrustBundle},
    verify::DownstreamVerifier,
};
use tokio::sync::{mpsc, watch as watch_channel};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use compile::Compiler;
pub use identity::CaError;
use identity::IdentityService;
pub use manifests::{EdgeListeners, EdgeOptions, ManifestOptions, manifests};
use metrics::Metrics;
use quota::QuotaService;
use server::server_config;
use status::StatusWriter;
use table::Table;
use updater::Updater;
use watch::NamedWatches;
use webhook::{Connections, Webhook};
use xds::{PushService, replicas::Replicas};

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
    /// The trust domain is none.
    #[error("the trust domain is not valid")]
    TrustDomain(#[source] meshgate_certs::identity::InvalidId),
    /// The serving certificate or key cannot be used.
    #[error("cannot use the serving certificate")]
    ServingCertificate(#[source] rustls::Error),
    /// A listener cannot be used.
    #[error("cannot use a listener")]
    Listener(#[source] std::io::Error),
    /// There is no root to sign with.
    #[error("the mesh has no root")]
    Authority(#[source] CaError),
    /// The root cannot be trusted.
    #[error("the mesh's root cannot be used")]
    Trust(#[source] meshgate_certs::trust::TrustError),
    /// The gRPC server ended by itself.
    #[error("the push server ended")]
    Serve(#[source] tonic::transport::Error),
    /// The HTTPS server ended by itself.
    #[error("the webhook server ended")]
    Webhook(#[source] std::io::Error),
}

/// How often a silent proxy is asked whether it is still there, and how long it may take to answer.
const KEEPALIVE: Duration = Duration::from_secs(10);
const KEEPALIVE_ANSWER: Duration = Duration::from_secs(5);
/// What streams and writers may take to end.
const DRAIN: Duration = Duration::from_secs(2);
/// Changes that may wait for the compiler; watches wait beyond that.
const CHANGES_MAX: usize = 4096;

/// Runs until `shutdown`.
pub async fn run(
    client: kube::Client,
    options: Options,
    shutdown: CancellationToken,
) -> Result<(), RunError> {
    let domain: TrustDomain = options
        .trust_domain
        .parse()
        .map_err(RunError::TrustDomain)?;
    let tasks = TaskTracker::new();
    let end = shutdown.child_token();
    let metrics = Metrics::new();
    let table = Arc::new(Table::new(now_unix_ms()));
    let replicas = Replicas::new();
    let (recorder, events) = Recorder::new(client.clone(), "meshgate-push", "");
    let status = StatusWriter::new(
        client.clone(),
        table.clone(),
        replicas.clone(),
        recorder,
        options.edge_addresses.clone(),
    );
    let (quota, owner) = QuotaService::new(metrics.clone(), tasks.clone(), end.clone());
    let (changes, received) = mpsc::channel(CHANGES_MAX);
    let (ready, is_ready) = watch_channel::channel(false);
    let updater = Updater {
        compiler: Compiler::new(&options.trust_domain),
        table: table.clone(),
        named: NamedWatches::new(client.clone(), changes.clone(), tasks.clone(), end.clone()),
        quota: quota.clone(),
        status: status.clone(),
        metrics: metrics.clone(),
        ready,
    };
    watch::start(&client, &changes, &tasks, &end);
    let background = [
        Box::pin(updater.run(received, replicas.edges()))
            as Pin<Box<dyn Future<Output = ()> + Send>>,
        Box::pin(status.run()),
        Box::pin(events.run()),
        Box::pin(owner),
    ];
    for task in background {
        let end = end.clone();
        tasks.spawn(async move {
            let _ = end.run_until_cancelled(task).await;
        });
    }
    let push = PushService {
        table: table.clone(),
        replicas: replicas.clone(),
        metrics: metrics.clone(),
        ready: is_ready,
        tasks: tasks.clone(),
        shutdown: end.clone(),
    };
    let webhook = Webhook {
        options: Arc::new(options.inject.clone()),
        metrics: metrics.clone(),
        table,
        replicas,
    };
    let ended = tokio::try_join!(
        serve_webhook(&options, webhook, &tasks, &end),
        serve_push(&client, &options, domain, push, quota, &tasks, &end)
    );
    end.cancel();
    tasks.close();
    if tokio::time::timeout(DRAIN, tasks.wait()).await.is_err() {
        tracing::warn!("tasks of push did not end in time");
    }
    ended.map(|_| ())
}

/// Configuration, identity and quotas, once there is a root to verify and to sign with.
async fn serve_push(
    client: &kube::Client,
    options: &Options,
    domain: TrustDomain,
    push: PushService,
    quota: QuotaService,
    tasks: &TaskTracker,
    end: &CancellationToken,
) -> Result<(), RunError> {
    let root = identity::load_or_create(client.clone(), &domain);
    let Some(authority) = end.run_until_cancelled(root).await else {
        return Ok(());
    };
    let authority = Arc::new(authority.map_err(RunError::Authority)?);
    let bundle = TrustBundle::from_der([authority.cert_der().clone()]).map_err(RunError::Trust)?;
    let clients = DownstreamVerifier::new(Trust::new(bundle), domain.clone());
    let config = server_config(
        &options.serving_cert_pem,
        &options.serving_key_pem,
        Some(clients),
        &["h2"],
    )
    .map_err(RunError::ServingCertificate)?;
    let (listener, _) = listen(&options.push_listener)?;
    let (connections, accept) = server::accept(listener, config, end.clone());
    tasks.spawn(accept);
    let metrics = push.metrics.clone();
    let identity =
        IdentityService::new(client.clone(), authority, domain, options.cert_ttl, metrics);
    let server = tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE_ANSWER))
        .add_service(push.server())
        .add_service(IdentityServer::new(identity))
        .add_service(QuotaServer::new(quota));
    let incoming = ReceiverStream::new(connections).map(Ok::<_, std::convert::Infallible>);
    let served = server
        .serve_with_incoming_shutdown(incoming, end.cancelled())
        .await;
    served.map_err(RunError::Serve)
}

async fn serve_webhook(
    options: &Options,
    webhook: Webhook,
    tasks: &TaskTracker,
    end: &CancellationToken,
) -> Result<(), RunError> {
    let config = server_config(
        &options.serving_cert_pem,
        &options.serving_key_pem,
        None,
        &["h2", "http/1.1"],
    )
    .map_err(RunError::ServingCertificate)?;
    let (listener, local) = listen(&options.webhook_listener)?;
    let (receiver, accept) = server::accept(listener, config, end.clone());
    tasks.spawn(accept);
    let connections = Connections { receiver, local };
    let server = axum::serve(connections, webhook::router(webhook))
        .with_graceful_shutdown(end.clone().cancelled_owned());
    server.await.map_err(RunError::Webhook)
}

fn listen(
    listener: &TcpListener,
) -> Result<(tokio::net::TcpListener, std::net::SocketAddr), RunError> {
    let take = || {
        let listener = listener.try_clone()?;
        listener.set_nonblocking(true)?;
        let local = listener.local_addr()?;
        Ok((tokio::net::TcpListener::from_std(listener)?, local))
    };
    take().map_err(RunError::Listener)
}

/// Where generations start: higher than any of a former process.
fn now_unix_ms() -> u64 {
    u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or_default()
}
