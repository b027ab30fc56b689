//! What the edge is told at its start.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;
use meshgate_api::names::{PORT_METRICS, PORT_READY};
use meshgate_proxy::RecordFormat;
use meshgate_proxy::push::link::ControlOptions;

/// All of it.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where the control plane is, and who asks.
    pub control: ControlOptions,
    /// Plain HTTP.
    pub http: Option<ListenAt>,
    /// HTTPS, terminated here.
    pub https: Option<ListenAt>,
    /// `/readyz`.
    pub ready: SocketAddr,
    /// `/metrics`.
    pub metrics: SocketAddr,
    /// One record for each request; `None` turns them off.
    pub access_log: Option<RecordFormat>,
    /// Threads that serve connections.
    pub workers: usize,
    /// How long requests in flight may take to finish after the shutdown began.
    pub drain: Duration,
    /// Peers whose X-Forwarded-* and Forwarded fields are believed.
    pub trusted_peers: Vec<IpNet>,
}

impl Options {
    /// Everything but the control plane and the listeners at its default.
    pub fn new(control: ControlOptions, http: Option<ListenAt>, https: Option<ListenAt>) -> Self {
        let everywhere = |port| SocketAddr::from(([0, 0, 0, 0], port));
        Self {
            control,
            http,
            https,
            ready: everywhere(PORT_READY),
            metrics: everywhere(PORT_METRICS),
            access_log: Some(RecordFormat::Json),
            workers: std::thread::available_parallelism().map_or(1, usize::from),
            drain: Duration::from_secs(25),
            trusted_peers: Vec::new(),
        }
    }
}

/// Where a listening socket comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenAt {
    /// Bound here.
    Address(SocketAddr),
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
            Self::HostSocket { server, name } => {
                write!(f, "the host's socket {name:?} from {}", server.display())
            }
        }
    }
}
