//! Connections from clients: what each is, and the protocol it is served with.

mod http;
mod http1;
mod http2;
mod mesh;
mod redirected;

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use meshgate_codec::{Fields, Known};
use meshgate_routing::WorkloadId;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

pub(crate) use http1::serve_http1;
pub(crate) use http2::serve_http2;

use crate::clock;
use crate::engine::Shared;
use crate::head::Destination;
use crate::headers::set;
use crate::io::Io;
use crate::listen::{ListenerKind, ListenerLimits};
use crate::service::ClientLoad;
use crate::tls::ClientProof;
use crate::upstream::Downstream;
use crate::worker::Tasks;

/// While draining, an idle connection may still bring a request for so long: HTTP/1 cannot say goodbye first.
const DRAIN_LINGER_MAX: Duration = Duration::from_secs(5);

/// One connection from a client, as every request on it sees it.
#[derive(Debug, Clone)]
pub(crate) struct Connection {
    pub(crate) shared: Arc<Shared>,
    pub(crate) tasks: Tasks,
    pub(crate) drain: CancellationToken,
    pub(crate) direction: Direction,
    pub(crate) limits: ListenerLimits,
    pub(crate) client: SocketAddr,
    /// Edge: what the client's address has under way, unless it stands for many.
    pub(crate) client_load: Option<Arc<ClientLoad>>,
    /// The address that the client connected to.
    pub(crate) local: SocketAddr,
    /// The same, as the client sees it: behind a proxy that tells, that proxy's.
    pub(crate) reached: SocketAddr,
    pub(crate) downstream: Arc<Downstream>,
    pub(crate) peer: Peer,
    /// Edge, with TLS: the name in the handshake.
    pub(crate) server_name: Option<Box<str>>,
    /// Edge: what the client proved for that name.
    pub(crate) client_proof: ClientProof,
    pub(crate) tls: bool,
    /// Where a redirected connection wanted to go.
    pub(crate) destination: Option<SocketAddr>,
    /// The other end is a verified proxy.
    pub(crate) from_mesh: bool,
    /// Requests within a tunnel: the destination was said when it was opened.
    pub(crate) inside_tunnel: Option<Destination>,
}

/// Which way a connection goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Direction {
    /// From outside to services.
    Edge,
    /// From the own application to others.
    Outbound,
    /// From others to the own application.
    Inbound,
}

/// Who the other end is.
#[derive(Clone, Debug)]
pub(crate) enum Peer {
    /// Proven by certificate.
    Known(WorkloadId),
    /// Nobody knows.
    Plain,
}

impl Peer {
    pub(crate) fn known(&self) -> Option<&WorkloadId> {
        match self {
            Self::Known(id) => Some(id),
            Self::Plain => None,
        }
    }
}

impl Direction {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Edge => "edge",
            Self::Outbound => "outbound",
            Self::Inbound => "inbound",
        }
    }

    /// Every answer of the edge says who gave it; a sidecar leaves the application's answers alone.
    pub(crate) fn sign(self, fields: &mut Fields) {
        if self == Self::Edge && !fields.contains(Known::Server) {
            set(fields, Known::Server, b"meshgate");
        }
    }
}

impl Connection {
    pub(crate) fn peer_label(&self) -> Arc<str> {
        match &self.peer {
            Peer::Known(id) => id.shared(),
            Peer::Plain => self.shared.plain.clone(),
        }
    }

    pub(crate) fn scheme(&self) -> &'static str {
        if self.tls { "https" } else { "http" }
    }

    /// Returns when the connection had its time to bring one more request after the drain began.
    async fn lingered(&self) {
        self.drain.cancelled().await;
        let left = DRAIN_LINGER_MAX.min(self.shared.options.drain / 2);
        // On the heap by itself: no connection holds a place for it before.
        Box::pin(tokio::time::sleep(left)).await;
    }

    /// Where the own application listens on this port.
    pub(crate) fn application(&self, port: u16) -> SocketAddr {
        let address: IpAddr = self
            .shared
            .options
            .application_address
            .unwrap_or_else(|| self.local.ip());
        SocketAddr::new(address, port)
    }
}

/// What an accepted connection brings along.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) stream: TcpStream,
    pub(crate) client: SocketAddr,
    pub(crate) client_load: Option<Arc<ClientLoad>>,
    /// What the client connected to, where a proxy in front tells.
    pub(crate) reached: Option<SocketAddr>,
    pub(crate) kind: ListenerKind,
    pub(crate) limits: ListenerLimits,
}

/// The rest of a connection's life.
pub(crate) type Serving = Pin<Box<dyn Future<Output = ()> + Send>>;
/// A part of it, after which another may follow.
type Beginning = Pin<Box<dyn Future<Output = Option<Serving>> + Send>>;

/// Serves a connection from beginning to end. Failures before the first request are counted, not told.
///
/// Each part is on the heap by itself, and gone before the next: most of a connection's life is waiting for the next
/// request, and what a handshake took is not held meanwhile.
pub(crate) fn serve(
    shared: Arc<Shared>,
    tasks: Tasks,
    drain: CancellationToken,
    accepted: Accepted,
) -> impl Future<Output = ()> + Send {
    let beginning = begin(shared, tasks, drain, accepted);
    async move {
        let Some(beginning) = beginning else { return };
        if let Some(rest) = beginning.await {
            rest.await;
        }
    }
}

fn begin(
    shared: Arc<Shared>,
    tasks: Tasks,
    drain: CancellationToken,
    accepted: Accepted,
) -> Option<Beginning> {
    let Accepted {
        stream,
        client,
        client_load,
        reached,
        kind,
        limits,
    } = accepted;
    let local = stream.local_addr().ok()?;
    let connection = Connection {
        direction: match kind {
            ListenerKind::EdgeHttp | ListenerKind::EdgeHttps => Direction::Edge,
            ListenerKind::Outbound(_) => Direction::Outbound,
            ListenerKind::InboundPlain(_) | ListenerKind::InboundMtls => Direction::Inbound,
        },
        shared,
        tasks,
        drain,
        limits,
        client,
        client_load,
        local,
        reached: reached.unwrap_or(local),
        downstream: Arc::default(),
        peer: Peer::Plain,
        server_name: None,
        client_proof: ClientProof::NotAsked,
        tls: false,
        destination: None,
        from_mesh: false,
        inside_tunnel: None,
    };
    Some(match kind {
        ListenerKind::EdgeHttp => Box::pin(http::clear(connection, Io::from(stream))),
        ListenerKind::EdgeHttps => Box::pin(http::tls(connection, stream)),
        ListenerKind::Outbound(source) | ListenerKind::InboundPlain(source) => {
            Box::pin(redirected::accept(connection, stream, source))
        }
        ListenerKind::InboundMtls => Box::pin(mesh::accept(connection, stream)),
    })
}

/// How old a connection may become: spread, so that those made together do not end together.
fn retirement(limits: &ListenerLimits) -> Duration {
    let jitter = 0.9 + 0.2 * (clock::chance() >> 11) as f64 / (1_u64 << 53) as f64;
    limits.age_max.mul_f64(jitter)
}
