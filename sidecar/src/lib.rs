//! The mesh proxy of one pod: its TCP traffic passes through here, both ways, and between meshed pods as mTLS.
//!
//! The order of its start: sockets, the redirect, the proof that it works, then no more privileges; then the tie to the
//! control plane, and with the pod's own policy known the first `accept`. Until then connections wait in the backlog:
//! no moment exists in which plaintext slips past a STRICT policy. The application starts only after that.

mod lookup;
mod options;
mod ports;
mod privileges;
mod redirect;
mod tables;
#[cfg(test)]
mod testnet;

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;

use meshgate_api::names::{PORT_INBOUND, PORT_MTLS, PORT_OUTBOUND};
use meshgate_api::push::node::Role;
use meshgate_proxy::memory::default_budget;
use meshgate_proxy::push::link::{self, CERTIFICATE, Link, Wants};
use meshgate_proxy::push::resource::Kind;
use meshgate_proxy::{
    Admin, Engine, EngineError, EngineOptions, Listener, ListenerKind, ListenerLimits,
    OriginalDestination, Readiness,
};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

pub use options::Options;
pub use ports::{InvalidPorts, PortSet};
pub use redirect::RedirectError;

use lookup::Lookup;
use redirect::Skipped;
use tables::Tables;

/// Readiness condition: traffic provably passes through here.
const REDIRECT: &str = "redirect";
/// Readiness condition: the own pod's policy is enforced.
const WORKLOAD: &str = "workload";
/// Readiness condition that a proxy on its way out no longer meets.
const STAYING: &str = "draining";
/// One thread: a sidecar shares its pod's processors with the application and has to be small.
const WORKERS: usize = 1;

/// Runs the sidecar until `shutdown`, then drains it.
pub async fn run(options: Options, shutdown: CancellationToken) -> Result<(), SidecarError> {
    privileges::use_small_pages();
    let sockets = Sockets::open(&options)?;
    intercept(&options, &sockets.outbound).await?;
    let own_traffic = privileges::drop_root().map_err(SidecarError::Privileges)?;

    let (interests, receiver) = link::interests();
    let lookup = Lookup::new(interests);
    let engine = Engine::new(EngineOptions {
        record: options.access_log,
        trace: options.trace.clone(),
        workers: WORKERS,
        drain: options.drain,
        memory_bytes_max: default_budget(),
        reclaim: options.reclaim,
        socket_mark: own_traffic.mark(),
        unknown_destination: Some(Arc::new(lookup.clone())),
        opaque_ports: options.opaque_ports.inclusive().collect(),
        ..EngineOptions::default()
    })
    .map_err(SidecarError::Engine)?;
    let readiness = Readiness::waiting_for(&[CERTIFICATE, WORKLOAD, REDIRECT]);
    readiness.met(REDIRECT);

    // What outlives the drain: probes still want an answer, and certificates may still be renewed.
    let background = CancellationToken::new();
    let mut admin = serve_admin(
        [sockets.ready, sockets.metrics],
        &engine,
        &readiness,
        &background,
    );
    let (known, mut workload_known) = watch::channel(false);
    let pod = &options.control.pod;
    let wants = Wants {
        role: Role::Sidecar,
        initial: vec![
            (
                Kind::Workload,
                vec![format!("{}/{}", pod.namespace, pod.name)],
            ),
            (Kind::Service, Vec::new()),
        ],
        enforce: Tables::new(engine.clone(), lookup, readiness.clone(), known),
        quotas: false,
    };
    let link = Link::start(
        &options.control,
        wants,
        receiver,
        &engine,
        &readiness,
        &background,
    );

    for listener in listeners(sockets.outbound, sockets.inbound, sockets.mtls) {
        engine.open(listener).map_err(SidecarError::Engine)?;
    }
    let serving = async {
        let known = workload_known.wait_for(|known| *known);
        if shutdown.run_until_cancelled(known).await.is_none() {
            return Ok(());
        }
        info!("serving");
        engine.run(shutdown.clone()).await
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
    served.map_err(SidecarError::Engine)
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

/// All sockets, opened while this may still fail without harm.
struct Sockets {
    outbound: TcpListener,
    inbound: TcpListener,
    mtls: TcpListener,
    ready: TcpListener,
    metrics: TcpListener,
}

impl Sockets {
    fn open(options: &Options) -> Result<Self, SidecarError> {
        let bind = |address| {
            TcpListener::bind(address).map_err(|source| SidecarError::Bind { address, source })
        };
        let everywhere = |port| SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
        Ok(Self {
            // Only the redirect leads here: nobody outside the pod can dial it.
            outbound: bind(SocketAddr::from((Ipv4Addr::LOCALHOST, PORT_OUTBOUND)))?,
            inbound: bind(everywhere(PORT_INBOUND))?,
            mtls: bind(everywhere(PORT_MTLS))?,
            ready: bind(options.ready)?,
            metrics: bind(options.metrics)?,
        })
    }
}

/// Redirects the pod's traffic to us, and proves it.
async fn intercept(options: &Options, outbound: &TcpListener) -> Result<(), SidecarError> {
    let skipped = Skipped {
        inbound: options.skip_inbound_ports.clone(),
        outbound: options.skip_outbound_ports.clone(),
    };
    redirect::install(&skipped).map_err(SidecarError::Redirect)?;
    let listen = || {
        let socket = outbound.try_clone()?;
        socket.set_nonblocking(true)?;
        tokio::net::TcpListener::from_std(socket)
    };
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, PORT_OUTBOUND));
    let listener = listen().map_err(|source| SidecarError::Bind { address, source })?;
    let others = redirect::check(&listener)
        .await
        .map_err(SidecarError::Redirect)?;
    if !others.is_empty() {
        // Only after a restart: the application is running and dialled just now. It dials again.
        warn!(
            count = others.len(),
            "connections closed while checking the redirect"
        );
    }
    info!("traffic passes through here");
    Ok(())
}

fn listeners(outbound: TcpListener, inbound: TcpListener, mtls: TcpListener) -> Vec<Listener> {
    let asked = OriginalDestination::Kernel;
    let listener = |socket, kind: ListenerKind| Listener {
        name: kind.name().into(),
        sockets: vec![socket],
        kind,
        limits: ListenerLimits::mesh(),
        proxies: Vec::new(),
    };
    vec![
        listener(outbound, ListenerKind::Outbound(asked)),
        listener(inbound, ListenerKind::InboundPlain(asked)),
        listener(mtls, ListenerKind::InboundMtls),
    ]
}

/// Why the sidecar cannot run.
#[derive(Debug, thiserror::Error)]
pub enum SidecarError {
    /// A socket.
    #[error("cannot listen on {address}")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The interception.
    #[error("the pod's traffic cannot be redirected")]
    Redirect(#[source] RedirectError),
    /// Its own rights.
    #[error("cannot give up privileges")]
    Privileges(#[source] nix::errno::Errno),
    /// The engine.
    #[error("the engine failed")]
    Engine(#[source] EngineError),
}
