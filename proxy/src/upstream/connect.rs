//! New connections to endpoints.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::client::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use meshgate_routing::WorkloadId;
use meshgate_routing::upstream::{FailureKind, Safety};
use rustls_pki_types::ServerName;
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;

use super::Wire;
use super::pool::StreamPlace;
use crate::body::RequestBody;
use crate::failure::{Failure, Reason, Side, Step};
use crate::http1::Client;
use crate::io::Io;
use crate::serve::Connection;
use crate::service::{GateRefusal, Pass, Picked, Service};

/// Makes connections to a service's endpoints on behalf of one downstream connection.
#[derive(Clone, Copy)]
pub(crate) struct Dialer<'a> {
    pub(crate) connection: &'a Connection,
    pub(crate) service: &'a Service,
    pub(crate) picked: &'a Picked,
}

/// Receive windows of a connection to another proxy: enough for a few hundred Mbit/s each within a data centre,
/// small enough to forget in an idle sidecar.
const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
/// Bytes that may wait in one stream before the body's source is asked to wait.
const SEND_BUFFER_BYTES: usize = 64 * 1024;
/// A busy connection that does not answer a ping for so long is dead.
const PING_EVERY: Duration = Duration::from_secs(20);
const PING_PATIENCE: Duration = Duration::from_secs(10);

impl<'a> Dialer<'a> {
    /// An HTTP/1 connection: one that waits in the pool, or a new one.
    pub(super) async fn http1(self) -> Result<(Box<Client>, Origin), Failure> {
        let worker = self.connection.tasks.worker();
        let live = self.picked.endpoint.live();
        if let Some(client) = live.pool.take_idle(worker) {
            return Ok((client, Origin::Reused));
        }
        let gate = &self.service.live().connections;
        let limits = &self.service.policy().limits;
        let attempt = || {
            if let Some(client) = live.pool.take_idle(worker) {
                return Some(Found::Idle(client));
            }
            gate.try_enter(limits.connections).map(Found::Place)
        };
        let found = match attempt() {
            Some(found) => found,
            None => gate
                .wait_for(limits.pending, limits.pending_timeout, attempt)
                .await
                .map_err(|refusal| overload("connections", refusal))?,
        };
        match found {
            Found::Idle(client) => Ok((client, Origin::Reused)),
            Found::Place(place) => {
                let stream = self.tcp(self.picked.endpoint.address()).await?;
                self.count("connected");
                Ok((Client::new(Io::from(stream), Some(place)), Origin::New))
            }
        }
    }

    /// A stream of an HTTP/2 connection, shared or new.
    pub(super) async fn http2(
        self,
        wire: Wire,
    ) -> Result<(http2::SendRequest<RequestBody>, StreamPlace, Origin), Failure> {
        let worker = self.connection.tasks.worker();
        let pool = &self.picked.endpoint.live().pool;
        if let Some((sender, place)) = pool.share(wire, worker) {
            return Ok((sender, place, Origin::Reused));
        }
        // Whoever waits behind a connection that cannot be made must not wait for one failure after the other.
        let patience = self.service.policy().connect_timeout;
        let _turn = tokio::time::timeout(patience, pool.making.acquire())
            .await
            .map_err(|_| self.refused(&format_args!("no connection within {patience:?}")))?;
        if let Some((sender, place)) = pool.share(wire, worker) {
            return Ok((sender, place, Origin::Reused));
        }
        let limits = &self.service.policy().limits;
        let pass = self
            .service
            .live()
            .connections
            .enter(limits.connections, limits.pending, limits.pending_timeout)
            .await
            .map_err(|refusal| overload("connections", refusal))?;
        let io = match wire {
            Wire::Mesh => self.mesh().await?,
            Wire::Http1 | Wire::Http2 => Io::from(self.tcp(self.picked.endpoint.address()).await?),
        };
        let (sender, task) = http2::Builder::new(self.connection.tasks.clone())
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_send_buf_size(SEND_BUFFER_BYTES)
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_PATIENCE)
            .handshake(TokioIo::new(io))
            .await
            .map_err(|error| self.refused(&error))?;
        self.connection.tasks.spawn(async move {
            let _pass = pass;
            let _ = task.await;
        });
        self.count("connected");
        let owner = Arc::downgrade(self.picked.endpoint.live());
        let (sender, place) = pool.add_shared(sender, wire, worker, owner, &self.connection.tasks);
        Ok((sender, place, Origin::New))
    }

    /// A plain TCP connection to the endpoint's application, not pooled.
    pub(crate) async fn tcp(self, address: SocketAddr) -> Result<TcpStream, Failure> {
        let patience = self.service.policy().connect_timeout;
        let mark = self.connection.shared.options.socket_mark;
        let gone = self.picked.endpoint.live().gone.cancelled();
        let connecting = async {
            tokio::select! {
                connected = connect_tcp(address, mark) => connected,
                // An address that nobody has any more does not even refuse.
                () = gone => Err(io::Error::new(io::ErrorKind::NotConnected, "the endpoint is gone")),
            }
        };
        match tokio::time::timeout(patience, connecting).await {
            Ok(Ok(stream)) => Ok(stream),
            // Not the endpoint's fault: none of them can be reached.
            Ok(Err(error)) if is_out_of_descriptors(&error) => Err(Failure::new(
                Side::Proxy,
                Step::Connect,
                Reason::Overload,
                "descriptors",
            )),
            Ok(Err(error)) => Err(self.refused(&error)),
            Err(_) => Err(self.refused(&format_args!("no answer within {patience:?}"))),
        }
    }

    /// mTLS with the proxy beside the endpoint, which must be who it should be.
    async fn mesh(self) -> Result<Io, Failure> {
        let endpoint = &self.picked.endpoint;
        let Some(expected) = &endpoint.spec().identity else {
            return Err(self.unproven("no identity is known"));
        };
        let mesh = self.connection.shared.mesh.load_full();
        let Some(mesh) = mesh else {
            return Err(self.unproven("this proxy has no certificate yet"));
        };
        let port = self.connection.shared.options.mtls_port;
        let address = SocketAddr::new(endpoint.address().ip(), port);
        let stream = self.tcp(address).await?;
        let name = ServerName::IpAddress(address.ip().into());
        let handshake = TlsConnector::from(mesh.client.clone()).connect(name, stream);
        let patience = self.service.policy().connect_timeout;
        let stream = match tokio::time::timeout(patience, handshake).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(self.unproven(&error.to_string())),
            Err(_) => return Err(self.unproven("the TLS handshake took too long")),
        };
        let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let proven: WorkloadId = (mesh.identify)(chain).map_err(|error| self.unproven(&error))?;
        if proven != *expected {
            return Err(self.unproven(&format!("expected {expected}, found {proven}")));
        }
        Ok(Io::from(stream))
    }

    fn refused(&self, error: &dyn std::fmt::Display) -> Failure {
        self.count("connect-failed");
        let detail = format!("{}: {error}", self.picked.endpoint.address());
        let retry = (FailureKind::Connect, Safety::Unprocessed);
        Failure::upstream(Step::Connect, Reason::UpstreamConnect, retry, detail)
    }

    fn unproven(&self, why: &str) -> Failure {
        self.count("identity-failed");
        let detail = format!("{}: {why}", self.picked.endpoint.address());
        let retry = (FailureKind::Connect, Safety::Unprocessed);
        Failure::upstream(Step::Connect, Reason::UpstreamIdentity, retry, detail)
    }

    fn count(&self, result: &'static str) {
        let metrics = &self.connection.shared.metrics;
        metrics.upstream(self.service.name(), result);
    }
}

/// Where a connection for a request came from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Origin {
    New,
    /// Its server may be closing it at this moment.
    Reused,
}

enum Found {
    Idle(Box<Client>),
    Place(Pass),
}

/// A limit of the service's was met.
pub(crate) fn overload(what: &str, refusal: GateRefusal) -> Failure {
    let detail = match refusal {
        GateRefusal::LineFull => format!("{what}: too many wait already"),
        GateRefusal::WaitedInVain => format!("{what}: none became free in time"),
    };
    Failure::new(Side::Proxy, Step::Pick, Reason::Overload, detail)
}

fn is_out_of_descriptors(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

/// Connects, with the proxy's mark if it has one.
pub(crate) async fn connect_tcp(address: SocketAddr, mark: Option<u32>) -> io::Result<TcpStream> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    if let Some(mark) = mark {
        socket2::SockRef::from(&socket).set_mark(mark)?;
    }
    socket.set_nodelay(true)?;
    socket.connect(address).await
}
