//! New connections to endpoints.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use meshgate_certs::origin;
use meshgate_codec::http1::HeadLimits;
use meshgate_codec::http2::{Config, Scheme};
use meshgate_routing::WorkloadId;
use meshgate_routing::upstream::{FailureKind, Safety};
use rustls_pki_types::ServerName;
use socket2::TcpKeepalive;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::Wire;
use super::announce::{Sole, header};
use super::pool::STREAMS_MAX;
use crate::failure::{Failure, Reason, Side, Step};
use crate::http1::Client;
use crate::http2;
use crate::io::Io;
use crate::listen::{FIELD_BYTES_MAX, HEAD_BYTES_MAX, HEADERS_MAX};
use crate::serve::Connection;
use crate::service::{GateRefusal, Pass, Picked, Service};
use crate::tls::origin::{Alpn, EndpointTls};

/// Makes connections to a service's endpoints on behalf of one downstream connection.
#[derive(Clone, Copy)]
pub(crate) struct Dialer<'a> {
    pub(crate) connection: &'a Connection,
    pub(crate) service: &'a Service,
    pub(crate) picked: &'a Picked,
    /// Whoever dials has a place among the service's connections, and needs no second one for what carries it.
    pub(crate) is_placed: bool,
}

/// What nobody has taken yet of one answer: enough for a gigabit within a data centre.
const STREAM_WINDOW_BYTES: u32 = 128 * 1024;
/// Of a connection, as much as all its streams together: a client that does not read must not stop the answers to others,
/// and costs one stream's window.
const CONFIG: Config = Config {
    // Servers open none.
    streams_max: 0,
    stream_window: STREAM_WINDOW_BYTES,
    connection_window: STREAMS_MAX as u32 * STREAM_WINDOW_BYTES,
    limits: HeadLimits {
        head_bytes_max: HEAD_BYTES_MAX,
        fields_max: HEADERS_MAX,
        field_bytes_max: FIELD_BYTES_MAX,
        target_bytes_max: 0,
    },
    extended_connect: false,
    speaks_for_many: false,
};

impl<'a> Dialer<'a> {
    /// What requests are made for (RFC 9113 §8.3.1): the endpoint may compare it with what it sees of the connection.
    pub(super) fn scheme(self, wire: Wire) -> Scheme {
        match self.service.policy().tls {
            Some(_) if wire != Wire::Mesh => Scheme::Https,
            _ => Scheme::Http,
        }
    }

    /// Whose alone the connection must be, if the endpoint wants to be told. The proxy beside an endpoint of the mesh knows
    /// who calls by better means.
    pub(super) fn sole(self) -> Option<Sole> {
        let version = self.service.policy().proxy_protocol?;
        let is_plain = self.picked.endpoint.spec().identity.is_none();
        is_plain.then(|| Sole::new(&self.connection.downstream, version))
    }

    /// An HTTP/1 connection: one that waits in the pool, or a new one.
    pub(super) async fn http1(self) -> Result<(Box<Client>, Origin), Failure> {
        let worker = self.connection.tasks.worker();
        let live = self.picked.endpoint.live();
        let sole = self.sole();
        let sole = sole.as_ref();
        if let Some(client) = live.pool.take_idle(worker, sole) {
            return Ok((client, Origin::Reused));
        }
        let gate = &self.service.live().connections;
        let limits = &self.service.policy().limits;
        let attempt = || {
            if let Some(client) = live.pool.take_idle(worker, sole) {
                return Some(Found::Idle(client));
            }
            self.try_place().map(Found::Place)
        };
        let found = match attempt() {
            Some(found) => found,
            // Rare, and much larger than what is usual, as is connecting.
            None => {
                let found =
                    Box::pin(gate.wait_for(limits.pending, limits.pending_timeout, attempt))
                        .await
                        .map_err(|refusal| overload("connections", refusal))?;
                self.picked.found_place();
                found
            }
        };
        match found {
            Found::Idle(client) => Ok((client, Origin::Reused)),
            Found::Place(place) => {
                let io = Box::pin(self.direct(Alpn::Http1)).await?;
                self.count("connected");
                Ok((Client::new(io, Some(place)), Origin::New))
            }
        }
    }

    /// A place among the service's connections. Those that nobody uses make room for one that somebody needs, to whichever
    /// endpoint they are and whichever worker made them.
    fn try_place(&self) -> Option<Pass> {
        let gate = &self.service.live().connections;
        let limit = self.service.policy().limits.connections;
        gate.try_enter(limit).or_else(|| {
            let mut endpoints = self.service.endpoints().iter();
            let freed = endpoints.any(|endpoint| endpoint.live().pool.give_up_idle());
            freed.then(|| gate.try_enter(limit)).flatten()
        })
    }

    /// Ends an HTTP/2 connection on which nothing is going on, for the sake of one that somebody waits for: that of all
    /// endpoints which was not used for longest. Its place is free once its end has been said.
    fn give_up_shared(&self) {
        let endpoints = self.service.endpoints().iter();
        let longest = endpoints
            .filter_map(|endpoint| {
                let pool = &endpoint.live().pool;
                Some((pool.longest_unused_shared()?, pool))
            })
            .min_by_key(|(since, _)| *since);
        if let Some((since, pool)) = longest {
            pool.give_up_shared(since);
        }
    }

    /// The same, after waiting for one if need be.
    pub(crate) async fn place(self) -> Result<Pass, Failure> {
        if let Some(place) = self.try_place() {
            return Ok(place);
        }
        self.give_up_shared();
        let gate = &self.service.live().connections;
        let limits = &self.service.policy().limits;
        let place = gate
            .wait_for(limits.pending, limits.pending_timeout, || self.try_place())
            .await
            .map_err(|refusal| overload("connections", refusal))?;
        self.picked.found_place();
        Ok(place)
    }

    /// An HTTP/2 connection with room for a stream, shared or new.
    pub(super) async fn http2(self, wire: Wire) -> Result<(http2::Client, Origin), Failure> {
        let worker = self.connection.tasks.worker();
        let pool = &self.picked.endpoint.live().pool;
        let sole = self.sole();
        if let Some(client) = pool.share(wire, worker, sole.as_ref()) {
            return Ok((client, Origin::Reused));
        }
        Box::pin(self.new_http2(wire, sole)).await
    }

    async fn new_http2(
        self,
        wire: Wire,
        sole: Option<Sole>,
    ) -> Result<(http2::Client, Origin), Failure> {
        let worker = self.connection.tasks.worker();
        let pool = &self.picked.endpoint.live().pool;
        // Whoever waits behind a connection that cannot be made must not wait for one failure after the other.
        let patience = self.service.policy().connect_timeout;
        let making = match sole {
            None => &pool.making,
            Some(_) => self.connection.downstream.making(),
        };
        let turn = tokio::time::timeout(patience, making.clone().acquire_owned())
            .await
            .map_err(|_| self.refused(&format_args!("no connection within {patience:?}")))?;
        if let Some(client) = pool.share(wire, worker, sole.as_ref()) {
            return Ok((client, Origin::Reused));
        }
        let pass = match self.is_placed {
            true => None,
            false => Some(self.place().await?),
        };
        let io = match wire {
            Wire::Mesh => self.mesh().await?,
            Wire::Http1 | Wire::Http2 => self.direct(Alpn::Http2).await?,
        };
        let (client, driving) = http2::Client::start(io, CONFIG, (turn, patience));
        let tasks = &self.connection.tasks;
        tasks.spawn(async move {
            let _pass = pass;
            driving.await;
        });
        self.count("connected");
        let owner = Arc::downgrade(self.picked.endpoint.live());
        pool.add_shared(client.clone(), (wire, sole), worker, owner, tasks);
        Ok((client, Origin::New))
    }

    /// A connection to the endpoint's application, not pooled: in the clear, or by TLS if the policy wants that. It begins
    /// with what the policy wants to be said of the client.
    pub(crate) async fn direct(self, alpn: Alpn) -> Result<Io, Failure> {
        let tls = match &self.service.policy().tls {
            None => return self.plain().await.map(Io::from),
            Some(EndpointTls::Verified(tls)) => tls,
            Some(EndpointTls::Refused(why)) => {
                let (step, reason) = (Step::Connect, Reason::Misconfigured);
                return Err(Failure::new(Side::Proxy, step, reason, why.to_string()));
            }
        };
        let patience = self.service.policy().connect_timeout;
        let deadline = Instant::now() + patience;
        let stream = self.plain().await?;
        let handshake = TlsConnector::from(tls.config(alpn)).connect(tls.name(), stream);
        match tokio::time::timeout_at(deadline, handshake).await {
            Ok(Ok(stream)) if alpn == Alpn::Http2 && !speaks_http2(&stream) => {
                Err(self.refused(&"the endpoint does not speak HTTP/2 (ALPN)"))
            }
            Ok(Ok(stream)) => Ok(Io::from(stream)),
            Ok(Err(error)) => Err(self.unshaken(&error)),
            Err(_) => Err(self.refused(&format_args!("no TLS handshake within {patience:?}"))),
        }
    }

    /// TCP, and what the policy wants to be said of the client.
    async fn plain(self) -> Result<TcpStream, Failure> {
        let mut stream = self.tcp(self.picked.endpoint.address()).await?;
        if let Some(version) = self.service.policy().proxy_protocol {
            let header = header(version, self.connection);
            // There is room for it: these are the first bytes.
            let written = stream.write_all(&header).await;
            written.map_err(|error| self.refused(&error))?;
        }
        Ok(stream)
    }

    /// A TCP connection, and nothing said on it.
    async fn tcp(self, address: SocketAddr) -> Result<TcpStream, Failure> {
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
        let deadline = Instant::now() + self.service.policy().connect_timeout;
        let stream = self.tcp(address).await?;
        let name = ServerName::IpAddress(address.ip().into());
        let handshake = TlsConnector::from(mesh.client.clone()).connect(name, stream);
        let stream = match tokio::time::timeout_at(deadline, handshake).await {
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

    /// The handshake failed: by what the endpoint should have proven, or otherwise.
    fn unshaken(&self, error: &io::Error) -> Failure {
        let tls = error.get_ref().and_then(|error| error.downcast_ref());
        match tls {
            Some(error @ rustls::Error::InvalidCertificate(_)) => {
                self.unproven(&origin::why(error))
            }
            _ => self.refused(&format_args!("TLS handshake: {error}")),
        }
    }

    pub(super) fn refused(&self, error: &dyn std::fmt::Display) -> Failure {
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
        GateRefusal::ShareSpent => format!("{what}: this client address has its share"),
    };
    Failure::new(Side::Proxy, Step::Pick, Reason::Overload, detail)
}

fn speaks_http2(stream: &TlsStream<TcpStream>) -> bool {
    stream.get_ref().1.alpn_protocol() == Some(b"h2")
}

fn is_out_of_descriptors(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

/// A peer that says nothing is asked for a sign of life, and given up after 50 s without one.
const KEEPALIVE: TcpKeepalive = TcpKeepalive::new()
    .with_time(Duration::from_secs(20))
    .with_interval(Duration::from_secs(10))
    .with_retries(3);

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
    // Whoever waits for a peer that has vanished learns of it. Nothing ends a peer that takes its time: that is why there is
    // no TCP_USER_TIMEOUT, which counts a closed window as silence.
    socket2::SockRef::from(&socket).set_tcp_keepalive(&KEEPALIVE)?;
    socket.connect(address).await
}
