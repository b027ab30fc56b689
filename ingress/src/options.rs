//! What the edge is told at its start.

use std::fmt;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;
use meshgate_api::names::{PORT_METRICS, PORT_READY};
use meshgate_proxy::memory::default_budget;
use meshgate_proxy::push::link::ControlOptions;
use meshgate_proxy::trace::TraceOptions;
use meshgate_proxy::{ListenerLimits, RecordFormat};

use crate::given::Given;

/// All of it.
#[derive(Debug)]
pub struct Options {
    /// Where the configuration comes from.
    pub source: Source,
    /// Plain HTTP, each address a listener.
    pub http: Vec<ListenAt>,
    /// HTTPS, terminated here.
    pub https: Vec<ListenAt>,
    /// `/readyz`.
    pub ready: ListenAt,
    /// `/metrics`.
    pub metrics: ListenAt,
    /// One record for each request; `None` turns them off.
    pub access_log: Option<RecordFormat>,
    /// Where spans of sampled requests go; `None` turns them off.
    pub trace: Option<TraceOptions>,
    /// Of each listener: how many connections; how large, how slow.
    pub limits: ListenerLimits,
    /// Threads that serve connections.
    pub workers: usize,
    /// How long requests in flight may take to finish after the shutdown began.
    pub drain: Duration,
    /// Memory that the process may use before it refuses; `None`: as much as there is.
    pub memory_bytes_max: Option<u64>,
    /// Has the allocator give back what it keeps; asked before anybody is refused for memory.
    pub reclaim: Option<fn()>,
    /// Peers that are believed about where a request came from: X-Forwarded-*, Forwarded, X-Request-ID, traceparent.
    pub trusted_peers: Vec<IpNet>,
    /// Proxies without HTTP, whose connections all begin with a PROXY header.
    pub proxies: Vec<IpNet>,
}

impl Options {
    /// Everything but the source and the listeners at its default.
    pub fn new(source: Source, http: Vec<ListenAt>, https: Vec<ListenAt>) -> Self {
        let everywhere = |port| ListenAt::Address(SocketAddr::from(([0, 0, 0, 0], port)));
        Self {
            source,
            http,
            https,
            ready: everywhere(PORT_READY),
            metrics: everywhere(PORT_METRICS),
            access_log: Some(RecordFormat::Json),
            trace: None,
            limits: ListenerLimits::default(),
            workers: std::thread::available_parallelism().map_or(1, usize::from),
            drain: Duration::from_secs(25),
            memory_bytes_max: default_budget(),
            reclaim: None,
            trusted_peers: Vec::new(),
            proxies: Vec::new(),
        }
    }
}

/// Where the configuration comes from.
#[derive(Debug)]
pub enum Source {
    /// A control plane pushes it, and certifies this edge.
    Control(Box<ControlOptions>),
    /// Somebody in this process gives it. The edge has no identity then: endpoints are called in the clear.
    Given(Given),
}

/// Where a listening socket comes from.
#[derive(Debug)]
pub enum ListenAt {
    /// Bound here.
    Address(SocketAddr),
    /// All sockets of one address, open already, and served by another process until this one serves.
    Open(Vec<TcpListener>),
    /// Opened by the host and handed over.
    HostSocket {
        /// The host's socket server.
        server: PathBuf,
        /// "http" or "https".
        name: String,
    },
}

impl FromStr for ListenAt {
    type Err = std::net::AddrParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self::Address)
    }
}

impl fmt::Display for ListenAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "{address}"),
            Self::Open(sockets) => match sockets.first().map(TcpListener::local_addr) {
                Some(Ok(address)) => write!(f, "{address}, taken over"),
                _ => f.write_str("sockets taken over"),
            },
            Self::HostSocket { server, name } => {
                write!(f, "the host's socket {name:?} from {}", server.display())
            }
        }
    }
}
