//! The edge proxy: the cluster's way in for HTTP and HTTPS.
//!
//! The order of its start: sockets, then the tie to the control plane (certificate, configuration), then the first
//! `accept`. A connection made meanwhile waits in the backlog instead of getting a wrong answer. The order of its end:
//! not ready, no more `accept`, requests in flight, the tie, out.

mod host_sockets;
mod options;
mod tables;

use std::convert::Infallible;
use std::io;
use std::net::TcpListener;

use meshgate_api::push::node::Role;
use meshgate_proxy::push::link::{self, CERTIFICATE, CONFIGURATION, Link, Wants};
use meshgate_proxy::push::resource::Kind;
use meshgate_proxy::{
    Admin, Engine, EngineError, EngineOptions, Listener, ListenerKind, ListenerLimits, Readiness,
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::info;

pub use host_sockets::HostSocketError;
pub use options::{ListenAt, Options};

use tables::Tables;

/// Readiness condition: sockets are open and served.
const LISTENERS: &str = "listeners";
/// Readiness condition that a proxy on its way out no longer meets.
const STAYING: &str = "draining";

/// Runs the edge until `shutdown`, then drains it.
pub async fn run(options: Options, shutdown: CancellationToken) -> Result<(), EdgeError> {
    // With huge pages each touched corner of the heap counts for 2 MiB. Failing costs memory, nothing else.
    let _ = nix::sys::prctl::set_thp_disable(true);
    let engine = Engine::new(EngineOptions {
        trusted_peers: options.trusted_peers.clone(),
        record: options.access_log,
        workers: options.workers,
        drain: options.drain,
        ..EngineOptions::default()
    })
    .map_err(EdgeError::Engine)?;
    let listeners = listeners(&options)?;
    let readiness = Readiness::waiting_for(&[CERTIFICATE, CONFIGURATION, LISTENERS]);

    // What outlives the drain: probes still want an answer, and certificates may still be renewed.
    let background = CancellationToken::new();
    let sockets = [bind(options.ready)?, bind(options.metrics)?];
    let mut admin = serve_admin(sockets, &engine, &readiness, &background);
    let everything = |kind| (kind, vec!["*".to_owned()]);
    let wants = Wants {
        role: Role::Edge,
        initial: [Kind::Certificate, Kind::Service, Kind::EdgeHost]
            .map(everything)
            .into(),
        enforce: Tables::new(engine.clone()),
        quotas: true,
    };
    let (_interests, receiver) = link::interests();
    let mut link = Link::start(
        &options.control,
        wants,
        receiver,
        &engine,
        &readiness,
        &background,
    );

    let serving = async {
        if shutdown
            .run_until_cancelled(link.configured())
            .await
            .is_none()
        {
            return Ok(());
        }
        readiness.met(LISTENERS);
        info!("serving");
        engine.run(listeners, shutdown.clone()).await
    };
    let leaving = async {
        shutdown.cancelled().await;
        readiness.unmet(STAYING);
        info!("draining");
        std::future::pending::<Infallible>().await
    };
    let served = tokio::select! {
        served = serving => served,
        never = leaving => match never {},
    };
    background.cancel();
    link.ended().await;
    while admin.join_next().await.is_some() {}
    served.map_err(EdgeError::Engine)
}

/// What probes and people ask, until `stop`.
fn serve_admin(
    sockets: [TcpListener; 2],
    engine: &Engine,
    readiness: &Readiness,
    stop: &CancellationToken,
) -> JoinSet<io::Result<()>> {
    let mut serving = JoinSet::new();
    for socket in sockets {
        let admin = Admin {
            metrics: engine.metrics().clone(),
            readiness: readiness.clone(),
        };
        let stop = stop.clone();
        serving.spawn(async move { admin.serve(socket, stop).await });
    }
    serving
}

fn listeners(options: &Options) -> Result<Vec<Listener>, EdgeError> {
    let wanted = [
        (&options.http, ListenerKind::EdgeHttp),
        (&options.https, ListenerKind::EdgeHttps),
    ];
    let mut listeners = Vec::new();
    for (at, kind) in wanted {
        let Some(at) = at else { continue };
        let socket = match at {
            ListenAt::Address(address) => bind(*address)?,
            ListenAt::HostSocket { server, name } => {
                host_sockets::ask(server, name).map_err(EdgeError::HostSocket)?
            }
        };
        info!(%at, listener = kind.name(), "listening");
        listeners.push(Listener {
            socket,
            kind,
            limits: ListenerLimits::default(),
        });
    }
    if listeners.is_empty() {
        return Err(EdgeError::NoListener);
    }
    Ok(listeners)
}

fn bind(address: std::net::SocketAddr) -> Result<TcpListener, EdgeError> {
    TcpListener::bind(address).map_err(|source| EdgeError::Bind { address, source })
}

/// Why the edge cannot run.
#[derive(Debug, thiserror::Error)]
pub enum EdgeError {
    /// Nothing to do.
    #[error("the edge has neither an HTTP nor an HTTPS listener")]
    NoListener,
    /// A socket of its own.
    #[error("cannot listen on {address}")]
    Bind {
        /// Where.
        address: std::net::SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// A socket of the host.
    #[error("cannot get a listening socket of the host")]
    HostSocket(#[source] HostSocketError),
    /// The engine.
    #[error("the engine failed")]
    Engine(#[source] EngineError),
}
