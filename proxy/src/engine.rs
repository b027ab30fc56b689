//! The engine as its owner sees it: options in, snapshots and identities swapped, listeners run.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use futures::future::BoxFuture;
use ipnet::IpNet;
use thiserror::Error;
use tokio_util::sync::CancellationToken;

use crate::limits::LimitBook;
use crate::listen::{Listener, ListenerKind};
use crate::memory::Memory;
use crate::metrics::Metrics;
use crate::record::{RecordFormat, Recorder};
use crate::service::ClientLoad;
use crate::snapshot::Snapshot;
use crate::tls::{EdgeTls, MeshTls};
use crate::trace::{TraceOptions, Tracer};
use crate::worker::{Clients, Descriptors, Listeners};

/// Asks the owner about a destination that the snapshot does not know.
pub trait UnknownDestination: fmt::Debug + Send + Sync {
    /// Returns when the snapshot of that moment may know it, or when it is time to go on without.
    fn ask(&self, destination: SocketAddr) -> BoxFuture<'_, ()>;
}

/// What does not change while a proxy runs.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// Peers whose X-Forwarded-* and Forwarded fields are believed (and extended instead of replaced), and that name
    /// requests and traces.
    pub trusted_peers: Vec<IpNet>,
    /// One line for each request; `None` turns records off.
    pub record: Option<RecordFormat>,
    /// Where spans of sampled requests go; `None` turns them off.
    pub trace: Option<TraceOptions>,
    /// Threads that serve connections; each has its own connections to endpoints.
    pub workers: usize,
    /// How long connections may finish after the shutdown token fires.
    pub drain: Duration,
    /// Memory from which on new requests are answered 503; from an eighth more on, connections are closed at once. `None`:
    /// there is no end of it. See [`default_budget`](crate::memory::default_budget).
    pub memory_bytes_max: Option<u64>,
    /// Has the allocator give back what it keeps, on the calling thread; asked before anybody is refused for memory, and
    /// when most of many connections are gone.
    pub reclaim: Option<fn()>,
    /// Port where endpoints with an identity take mTLS.
    pub mtls_port: u16,
    /// Mark of the proxy's own packets (SO_MARK), where its user id does not tell them from the application's.
    pub socket_mark: Option<u32>,
    /// Sidecar inbound over mTLS: where the application listens; `None` is the address that the peer connected to.
    pub application_address: Option<IpAddr>,
    /// Sidecar outbound: asked once for a connection to a destination that the snapshot does not know; what is still
    /// unknown then is passed through.
    pub unknown_destination: Option<Arc<dyn UnknownDestination>>,
    /// Ports that are passed on as TCP without detection, in both directions of a sidecar.
    pub opaque_ports: Vec<RangeInclusive<u16>>,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            trusted_peers: Vec::new(),
            record: None,
            trace: None,
            workers: 1,
            drain: Duration::from_secs(25),
            memory_bytes_max: None,
            reclaim: None,
            mtls_port: meshgate_api::names::PORT_MTLS,
            socket_mark: None,
            application_address: None,
            unknown_destination: None,
            opaque_ports: Vec::new(),
        }
    }
}

impl EngineOptions {
    /// Threads that serve connections; without one there would be no proxy.
    pub(crate) fn workers(&self) -> usize {
        self.workers.max(1)
    }
}

/// The engine of one proxy. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Engine {
    pub(crate) shared: Arc<Shared>,
}

/// What all connections share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) options: EngineOptions,
    pub(crate) snapshot: Arc<ArcSwap<Snapshot>>,
    pub(crate) mesh: ArcSwapOption<MeshTls>,
    pub(crate) limits: LimitBook,
    pub(crate) listeners: Listeners,
    pub(crate) descriptors: Descriptors,
    /// Those of all listeners of the edge: they lead to the same services.
    pub(crate) clients: Clients<Arc<ClientLoad>>,
    pub(crate) memory: Memory,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) recorder: Recorder,
    pub(crate) tracer: Option<Tracer>,
    pub(crate) local: crate::local::LocalApplications,
    pub(crate) edge_tls: EdgeTls,
    /// The empty name, shared by all records that have none.
    pub(crate) nothing: Arc<str>,
    /// "plain": what records and metrics call a peer without identity.
    pub(crate) plain: Arc<str>,
}

/// Why an engine cannot start or go on.
#[derive(Debug, Error)]
pub enum EngineError {
    /// The TLS library refused our settings.
    #[error("cannot set up TLS")]
    Tls(#[source] rustls::Error),
    /// A thread could not be started.
    #[error("cannot start worker {index}")]
    Worker {
        /// Which.
        index: usize,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A listening socket cannot be used.
    #[error("cannot use the listener {name:?}")]
    Listener {
        /// What its owner calls it.
        name: Arc<str>,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It drains, or has ended.
    #[error("the engine opens no listener any more: it is ending")]
    Over,
    /// A worker ended by a defect.
    #[error("worker {index} ended unexpectedly")]
    WorkerLost {
        /// Which.
        index: usize,
    },
}

impl Engine {
    /// An engine that knows nothing yet: every request is answered 404 until the first [`swap`](Self::swap).
    pub fn new(options: EngineOptions) -> Result<Self, EngineError> {
        let snapshot = Arc::new(ArcSwap::from_pointee(Snapshot::default()));
        let metrics = Arc::new(Metrics::new());
        let edge_tls = EdgeTls::new(snapshot.clone()).map_err(EngineError::Tls)?;
        Ok(Self {
            shared: Arc::new(Shared {
                recorder: Recorder::start(options.record, metrics.clone()),
                tracer: options.trace.as_ref().and_then(|trace| {
                    Tracer::start(trace, options.workers(), options.socket_mark, &metrics)
                }),
                snapshot,
                mesh: ArcSwapOption::empty(),
                limits: LimitBook::default(),
                listeners: Listeners::new(options.workers()),
                descriptors: Descriptors::claim(),
                clients: Clients::default(),
                memory: Memory::new(options.memory_bytes_max, options.reclaim),
                metrics,
                local: crate::local::LocalApplications::default(),
                edge_tls,
                nothing: "".into(),
                plain: "plain".into(),
                options,
            }),
        })
    }

    /// What is enforced now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.shared.snapshot.load_full()
    }

    /// Enforces this for every request from now on; requests in flight keep what they began with.
    pub fn swap(&self, snapshot: Snapshot) {
        self.shared.snapshot.store(Arc::new(snapshot));
    }

    /// Opens and keeps rate limits; its [`quota`](LimitBook::quota) is for the quota client.
    pub fn limits(&self) -> &LimitBook {
        &self.shared.limits
    }

    /// How the proxy proves itself in the mesh; new connections use it from now on, open ones stay as they are.
    pub fn set_mesh_tls(&self, mesh: MeshTls) {
        self.shared.mesh.store(Some(Arc::new(mesh)));
    }

    /// Mark of the proxy's own packets, for what its owner dials.
    pub fn socket_mark(&self) -> Option<u32> {
        self.shared.options.socket_mark
    }

    /// Counters; owners add their own series here.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.shared.metrics
    }

    /// Takes connections in at this listener, once the engine runs. One of the same name is closed then; between the two
    /// nobody is refused.
    pub fn open(&self, listener: Listener) -> Result<(), EngineError> {
        self.shared.listeners.open(listener)
    }

    /// Takes no more connections in at the listener of that name, if there is one. Its connections finish, until the
    /// drain's deadline; those of others know nothing of it.
    pub fn close(&self, name: &str) -> bool {
        self.shared.listeners.close(name)
    }

    /// The sockets of all listeners that are open now, by what their connections mean, to hand them on.
    pub fn sockets(&self) -> io::Result<Vec<(ListenerKind, TcpListener)>> {
        self.shared.listeners.sockets()
    }

    /// Serves until `shutdown` fires and connections have drained (or the drain deadline has passed). The listeners
    /// stop accepting at once, and no other is opened any more. Spans that wait are sent then, within a few seconds.
    pub async fn run(&self, shutdown: CancellationToken) -> Result<(), EngineError> {
        let ran = crate::worker::run(self.shared.clone(), shutdown).await;
        if let Some(tracer) = &self.shared.tracer {
            tracer.end().await;
        }
        ran
    }
}
