//! The edge proxy: the cluster's way in for HTTP and HTTPS.
//!
//! The order of its start: sockets, then its source of configuration (a control plane, which certifies it as well, or
//! somebody in this process), then the first `accept`. A connection made meanwhile waits in the backlog instead of
//! getting a wrong answer. The order of its end: not ready, no more `accept`, requests in flight, the source, out.
//!
//! Sockets may come from a process that serves them, and go to one: then both accept for a moment, and nobody who
//! connects is refused.

mod access;
pub mod descriptors;
mod given;
mod host_sockets;
mod options;
mod tables;

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};

use ipnet::IpNet;
use meshgate_api::push::node::Role;
use meshgate_proxy::listen::bind;
use meshgate_proxy::push::link::{
    self, CERTIFICATE, CONFIGURATION, ControlOptions, Interests, Link, Wants,
};
use meshgate_proxy::push::resource::Kind;
use meshgate_proxy::{
    Admin, Engine, EngineError, EngineOptions, Listener, ListenerKind, ListenerLimits, Readiness,
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

pub use given::{Given, Giver, NotEnforced, given};
pub use host_sockets::HostSocketError;
pub use options::{ListenAt, Options, Source};
pub use tables::refusals;

use tables::Tables;

/// Readiness condition: sockets are open and served.
const LISTENERS: &str = "listeners";
/// Readiness condition that a proxy on its way out no longer meets.
const STAYING: &str = "draining";

/// Runs the edge until `shutdown`, then drains it.
pub async fn run(options: Options, shutdown: CancellationToken) -> Result<(), EdgeError> {
    let ending = Ending {
        shutdown,
        replaced: CancellationToken::new(),
    };
    Edge::open(options)?.run(|| {}, ending).await
}

/// How a run ends.
#[derive(Debug, Clone)]
pub struct Ending {
    /// Drains.
    pub shutdown: CancellationToken,
    /// Another process serves the sockets: comes before `shutdown`, and gives up those of probes, too.
    pub replaced: CancellationToken,
}

/// The sockets of an edge: those that people and probes use, and those of the listeners of any moment.
#[derive(Debug)]
pub struct Sockets {
    engine: Engine,
    admin: Vec<(&'static str, TcpListener)>,
}

impl Sockets {
    /// Other descriptors of all that are open now, by what is served there: "http", "https", "ready", "metrics".
    pub fn now(&self) -> Result<Vec<(&'static str, TcpListener)>, EdgeError> {
        let listeners = self.engine.sockets();
        let listeners = listeners.map_err(EdgeError::socket("listening"))?;
        let listeners = listeners
            .into_iter()
            .map(|(kind, socket)| Ok((kind.name(), socket)));
        let admin = self.admin.iter().map(|(name, socket)| {
            let other = socket.try_clone().map_err(EdgeError::socket(name))?;
            Ok((*name, other))
        });
        listeners.chain(admin).collect()
    }
}

/// An edge with its sockets open and nothing accepted yet.
#[derive(Debug)]
pub struct Edge {
    engine: Engine,
    source: Source,
    admin: [AdminSocket; 2],
}

#[derive(Debug)]
struct AdminSocket {
    name: &'static str,
    socket: TcpListener,
    /// Another process answers there until this one serves.
    taken_over: bool,
}

impl Edge {
    /// Opens the sockets.
    pub fn open(options: Options) -> Result<Self, EdgeError> {
        // With huge pages each touched corner of the heap counts for 2 MiB. Failing costs memory, nothing else.
        let _ = nix::sys::prctl::set_thp_disable(true);
        let engine = Engine::new(EngineOptions {
            trusted_peers: options.trusted_peers,
            record: options.access_log,
            trace: options.trace,
            workers: options.workers,
            drain: options.drain,
            memory_bytes_max: options.memory_bytes_max,
            reclaim: options.reclaim,
            ..EngineOptions::default()
        })
        .map_err(EdgeError::Engine)?;
        let wanted = [
            (options.http, ListenerKind::EdgeHttp),
            (options.https, ListenerKind::EdgeHttps),
        ];
        let limits = (options.limits, options.proxies.as_slice());
        listen(&engine, wanted, options.workers, limits)?;
        let admin = |name, at: ListenAt| {
            Ok(AdminSocket {
                name,
                taken_over: matches!(at, ListenAt::Open(_)),
                // Who asks here does not come by the thousand.
                socket: open(at, name, 1)?.1.swap_remove(0),
            })
        };
        Ok(Self {
            engine,
            source: options.source,
            admin: [
                admin("ready", options.ready)?,
                admin("metrics", options.metrics)?,
            ],
        })
    }

    /// Its sockets, to hand them on while it runs.
    pub fn sockets(&self) -> Result<Sockets, EdgeError> {
        let admin = self.admin.iter().map(|AdminSocket { name, socket, .. }| {
            let socket = socket.try_clone();
            Ok((*name, socket.map_err(EdgeError::socket(name))?))
        });
        Ok(Sockets {
            engine: self.engine.clone(),
            admin: admin.collect::<Result<_, _>>()?,
        })
    }

    /// Serves until the end. `serving` is called when connections are accepted.
    pub async fn run(self, serving: impl FnOnce(), ending: Ending) -> Result<(), EdgeError> {
        let Ending { shutdown, replaced } = ending;
        let mut awaited = vec![CONFIGURATION, LISTENERS];
        if matches!(self.source, Source::Control(_)) {
            awaited.push(CERTIFICATE);
        }
        let readiness = Readiness::waiting_for(&awaited);
        // What outlives the drain: probes still want an answer, and certificates may still be renewed.
        let background = CancellationToken::new();
        let engine = self.engine;
        let mut admin = AdminServers {
            engine: &engine,
            readiness: &readiness,
            stop: [&background, &replaced],
            serving: JoinSet::new(),
        };
        let (later, now): (Vec<_>, Vec<_>) = self.admin.into_iter().partition(|a| a.taken_over);
        now.into_iter().for_each(|socket| admin.serve(socket));
        let mut configuration =
            Configuration::follow(self.source, &engine, &readiness, &background);

        let accepting = async {
            let configured = configuration.configured();
            if shutdown.run_until_cancelled(configured).await.is_none() {
                return Ok(());
            }
            later.into_iter().for_each(|socket| admin.serve(socket));
            let run = std::pin::pin!(engine.run(shutdown.clone()));
            accept(run, || {
                readiness.met(LISTENERS);
                info!("serving");
                serving();
            })
            .await
        };
        let leaving = async {
            shutdown.cancelled().await;
            // A probe that came before the other process took over hears what that one would say.
            if !replaced.is_cancelled() {
                readiness.unmet(STAYING);
            }
            info!("draining");
            std::future::pending::<Infallible>().await
        };
        let served = tokio::select! {
            served = accepting => served,
            never = leaving => match never {},
        };
        background.cancel();
        configuration.ended().await;
        admin.ended().await;
        served.map_err(EdgeError::Engine)
    }
}

/// Runs the engine, and tells when its first step, in which workers start, has not failed.
async fn accept(
    mut run: std::pin::Pin<&mut impl Future<Output = Result<(), EngineError>>>,
    started: impl FnOnce(),
) -> Result<(), EngineError> {
    if let std::task::Poll::Ready(ended) = futures::poll!(&mut run) {
        return ended;
    }
    started();
    run.await
}

/// The running source of configuration.
enum Configuration {
    Link {
        link: Link,
        /// The stream ends with it: an edge asks for everything once, and for no more.
        _interests: Interests,
    },
    Given {
        configured: CancellationToken,
        task: tokio::task::JoinHandle<()>,
    },
}

impl Configuration {
    fn follow(
        source: Source,
        engine: &Engine,
        readiness: &Readiness,
        stop: &CancellationToken,
    ) -> Self {
        match source {
            Source::Control(control) => follow_control(&control, engine, readiness, stop),
            Source::Given(given) => {
                let configured = CancellationToken::new();
                let (told, readiness) = (configured.clone(), readiness.clone());
                let (engine, stop) = (engine.clone(), stop.clone());
                let task = tokio::spawn(async move {
                    let tables = Tables::new(engine.clone());
                    let follow = given.follow(tables, engine.metrics(), || {
                        readiness.met(CONFIGURATION);
                        told.cancel();
                    });
                    stop.run_until_cancelled(follow).await;
                });
                Self::Given { configured, task }
            }
        }
    }

    /// Returns when the first configuration is enforced.
    async fn configured(&mut self) {
        match self {
            Self::Link { link, .. } => link.configured().await,
            Self::Given { configured, .. } => configured.cancelled().await,
        }
    }

    async fn ended(self) {
        match self {
            Self::Link { link, .. } => link.ended().await,
            Self::Given { task, .. } => {
                if let Err(defect) = task.await {
                    error!(%defect, "the task that takes configuration ended by a defect");
                }
            }
        }
    }
}

fn follow_control(
    control: &ControlOptions,
    engine: &Engine,
    readiness: &Readiness,
    stop: &CancellationToken,
) -> Configuration {
    let everything = |kind| (kind, vec!["*".to_owned()]);
    let wants = Wants {
        role: Role::Edge,
        initial: [Kind::Certificate, Kind::Service, Kind::EdgeHost]
            .map(everything)
            .into(),
        enforce: Tables::new(engine.clone()),
        quotas: true,
    };
    let (interests, receiver) = link::interests();
    Configuration::Link {
        link: Link::start(control, wants, receiver, engine, readiness, stop),
        _interests: interests,
    }
}

/// What answers probes and people.
struct AdminServers<'a> {
    engine: &'a Engine,
    readiness: &'a Readiness,
    /// Any of them.
    stop: [&'a CancellationToken; 2],
    serving: JoinSet<io::Result<()>>,
}

impl AdminServers<'_> {
    fn serve(&mut self, AdminSocket { socket, .. }: AdminSocket) {
        let admin = Admin {
            metrics: self.engine.metrics().clone(),
            readiness: self.readiness.clone(),
        };
        let [background, replaced] = self.stop.map(Clone::clone);
        self.serving.spawn(async move {
            let stop = background.child_token();
            let either = async {
                replaced.cancelled().await;
                stop.cancel();
                std::future::pending::<Infallible>().await
            };
            tokio::select! {
                served = admin.serve(socket, stop.clone()) => served,
                never = either => match never {},
            }
        });
    }

    async fn ended(mut self) {
        while self.serving.join_next().await.is_some() {}
    }
}

fn listen(
    engine: &Engine,
    wanted: [(Vec<ListenAt>, ListenerKind); 2],
    workers: usize,
    (limits, proxies): (ListenerLimits, &[IpNet]),
) -> Result<(), EdgeError> {
    if wanted.iter().all(|(places, _)| places.is_empty()) {
        return Err(EdgeError::NoListener);
    }
    let each = wanted
        .into_iter()
        .flat_map(|(places, kind)| places.into_iter().map(move |at| (at, kind)));
    for (at, kind) in each {
        let (address, sockets) = open(at, kind.name(), workers)?;
        let listener = Listener {
            name: format!("{}@{address}", kind.name()).into(),
            sockets,
            kind,
            limits,
            proxies: proxies.to_vec(),
        };
        engine.open(listener).map_err(EdgeError::Engine)?;
    }
    Ok(())
}

/// The sockets of one address, at least one: as many as are wanted where they are bound here, else what there is.
fn open(
    at: ListenAt,
    name: &'static str,
    count: usize,
) -> Result<(SocketAddr, Vec<TcpListener>), EdgeError> {
    let sockets = match at {
        ListenAt::Address(address) => {
            bind(address, count).map_err(|source| EdgeError::Bind { address, source })?
        }
        ListenAt::Open(sockets) => sockets,
        ListenAt::HostSocket { server, name } => {
            vec![host_sockets::ask(&server, &name).map_err(EdgeError::HostSocket)?]
        }
    };
    let first = sockets.first().ok_or(EdgeError::NoSocket { name })?;
    let at = first.local_addr().map_err(EdgeError::socket(name))?;
    info!(%at, listener = name, sockets = sockets.len(), "listening");
    Ok((at, sockets))
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
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// Sockets that are open, and none is.
    #[error("no {name} socket was handed over")]
    NoSocket {
        /// Which.
        name: &'static str,
    },
    /// A socket that is open.
    #[error("cannot use the {name} socket")]
    Socket {
        /// Which.
        name: &'static str,
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

impl EdgeError {
    fn socket(name: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Socket { name, source }
    }
}
