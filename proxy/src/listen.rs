//! Where connections come from.

mod bind;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

pub use bind::bind;
pub(crate) use bind::tune;

/// Listening sockets of one address and what its connections mean.
#[derive(Debug)]
pub struct Listener {
    /// What its owner calls it, among those of one engine.
    pub name: Arc<str>,
    /// Bound and listening; the engine makes them non-blocking, and closes them when it stops accepting. One is shared by
    /// all workers; of several (see [`bind()`]) all are attended, however many workers there are.
    pub sockets: Vec<TcpListener>,
    /// What its connections mean.
    pub kind: ListenerKind,
    /// How many connections, how large, how slow.
    pub limits: ListenerLimits,
    /// Proxies without HTTP: each of their connections begins with a PROXY header, which tells the client's address. A
    /// connection of anybody else that begins so is closed.
    pub proxies: Vec<IpNet>,
}

/// What the connections of a listener mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenerKind {
    /// Edge: HTTP/1.1 and HTTP/2 with prior knowledge, in the clear.
    EdgeHttp,
    /// Edge: TLS with certificates by server name; HTTP/2 or HTTP/1.1 by ALPN.
    EdgeHttps,
    /// Sidecar: what the application sends, redirected here.
    Outbound(OriginalDestination),
    /// Sidecar: what comes for the application without mTLS, redirected here.
    InboundPlain(OriginalDestination),
    /// Sidecar: what comes for the application with mTLS (port 15008).
    InboundMtls,
}

impl ListenerKind {
    /// Whether clients from outside come this way.
    pub(crate) fn is_edge(self) -> bool {
        matches!(self, Self::EdgeHttp | Self::EdgeHttps)
    }

    /// Name in metrics and records.
    pub fn name(self) -> &'static str {
        match self {
            Self::EdgeHttp => "http",
            Self::EdgeHttps => "https",
            Self::Outbound(_) => "outbound",
            Self::InboundPlain(_) => "inbound",
            Self::InboundMtls => "inbound-mtls",
        }
    }
}

/// Where a redirected connection wanted to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OriginalDestination {
    /// Ask the kernel (SO_ORIGINAL_DST).
    Kernel,
    /// Always there; for tests and explicit forwards.
    Fixed(SocketAddr),
}

/// How many connections, how large, how slow. `Default` is what holds at the edge with zero configuration.
#[derive(Clone, Copy, Debug)]
pub struct ListenerLimits {
    /// Connections at once.
    pub connections: u32,
    /// Connections of one client address at once; zero is unlimited.
    pub connections_per_client: u32,
    /// A TLS handshake; a PROXY header.
    pub handshake_timeout: Duration,
    /// A request head, from its first byte.
    pub header_timeout: Duration,
    /// Between requests.
    pub keep_alive: Duration,
    /// A connection's life, give or take a tenth: clients come back, and are spread anew over replicas.
    pub age_max: Duration,
    /// Requests of one connection, for the same reason.
    pub requests_max: u32,
    /// Between two reads of a request body.
    pub body_idle_timeout: Duration,
    /// A client that takes no byte of an answer for so long is given up: what the connection holds belongs to others.
    pub write_stall_timeout: Duration,
    /// A request body; `None`: unlimited.
    pub body_bytes_max: Option<u64>,
    /// Until the first bytes decide a redirected connection's protocol; then it is TCP.
    pub detect_timeout: Duration,
    /// HTTP/2 streams of one connection at once.
    pub streams: u32,
}

impl Default for ListenerLimits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            connections_per_client: 256,
            handshake_timeout: Duration::from_secs(5),
            header_timeout: Duration::from_secs(10),
            keep_alive: Duration::from_secs(60),
            age_max: Duration::from_secs(3600),
            requests_max: 10_000,
            body_idle_timeout: Duration::from_secs(30),
            write_stall_timeout: Duration::from_secs(30),
            body_bytes_max: Some(10 * 1024 * 1024),
            detect_timeout: Duration::from_millis(100),
            streams: 100,
        }
    }
}

impl ListenerLimits {
    /// Within the mesh peers are known and few: no limit by address, long-lived connections, bodies of any size.
    pub fn mesh() -> Self {
        Self {
            connections_per_client: 0,
            keep_alive: Duration::from_secs(3600),
            requests_max: u32::MAX,
            body_idle_timeout: Duration::from_secs(3600),
            write_stall_timeout: Duration::from_secs(3600),
            body_bytes_max: None,
            streams: 1000,
            ..Self::default()
        }
    }
}

/// Longest request target (RFC 9110 recommends at least 8000 octets).
pub(crate) const URI_BYTES_MAX: usize = 8 * 1024;
/// Longest request head.
pub(crate) const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Most fields of a head.
pub(crate) const HEADERS_MAX: usize = 100;
/// Longest field of a head.
pub(crate) const FIELD_BYTES_MAX: usize = 16 * 1024;
