//! Listeners, connections, and their end.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::http_server::{self, Connection, Kind, Shared};
use crate::log;
use crate::options::{Mode, ServeOptions};
use crate::plain;
use crate::tls::{self, TlsError, TlsFacts};

/// How long requests in flight may take after the shutdown was asked for.
const DRAIN: Duration = Duration::from_secs(20);
/// How long a client may take for its TLS handshake, and for the head of a request.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Serves until `shutdown`, then lets requests in flight finish.
pub async fn serve(options: ServeOptions, shutdown: CancellationToken) -> Result<(), ServeError> {
    let server = Server::bind(&options).await?;
    server.run(shutdown).await;
    Ok(())
}

/// Everything is bound: from here on nothing can fail.
pub(crate) struct Server {
    ports: Vec<Port>,
    datagrams: Option<UdpSocket>,
    shared: Arc<Shared>,
}

struct Port {
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    serves: Serves,
}

#[derive(Clone)]
enum Serves {
    Http(Kind),
    /// Lines; the ports are told to clients.
    Lines {
        tcp_port: u16,
        tls_port: u16,
    },
}

impl Server {
    pub(crate) async fn bind(options: &ServeOptions) -> Result<Self, ServeError> {
        let acceptor = |alpn: &[&str]| {
            let config = tls::server_config(&options.tls, alpn).map_err(ServeError::Tls)?;
            Ok(Some(TlsAcceptor::from(Arc::new(config))))
        };
        let mut ports = Vec::new();
        let mut datagrams = None;
        match options.mode {
            Mode::Http {
                http_port,
                h2c_port,
                https_port,
            } => {
                let both = acceptor(&["h2", "http/1.1"])?;
                ports.push(Port::bind(http_port, "http", None, Serves::Http(Kind::Any)).await?);
                ports.push(Port::bind(h2c_port, "h2c", None, Serves::Http(Kind::Http2)).await?);
                ports.push(Port::bind(https_port, "https", both, Serves::Http(Kind::Any)).await?);
            }
            Mode::Grpc {
                http_port,
                https_port,
            } => {
                let h2 = acceptor(&["h2"])?;
                ports.push(Port::bind(http_port, "grpc", None, Serves::Http(Kind::Grpc)).await?);
                ports.push(Port::bind(https_port, "grpcs", h2, Serves::Http(Kind::Grpc)).await?);
            }
            Mode::Plain { tcp, udp_port } => {
                if let Some(tcp) = tcp {
                    let (tcp_port, tls_port) = (tcp.tcp_port, tcp.tls_port);
                    let lines = Serves::Lines { tcp_port, tls_port };
                    ports.push(Port::bind(tcp_port, "tcp", None, lines.clone()).await?);
                    ports.push(Port::bind(tls_port, "tls", acceptor(&[])?, lines).await?);
                }
                if let Some(port) = udp_port {
                    datagrams = Some(bind_udp(port).await?);
                }
            }
        }
        let http_port = ports
            .first()
            .and_then(|port| port.listener.local_addr().ok());
        let shared = Shared {
            context: options.context.clone(),
            http_port: http_port.map_or_else(String::new, |address| address.port().to_string()),
            log_requests: options.log_requests,
            series: Default::default(),
        };
        Ok(Self {
            ports,
            datagrams,
            shared: Arc::new(shared),
        })
    }

    #[cfg(test)]
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        let tcp = self.ports.iter().map(|port| port.listener.local_addr());
        let udp = self.datagrams.iter().map(UdpSocket::local_addr);
        tcp.chain(udp).map(Result::unwrap).collect()
    }

    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let mut tasks = JoinSet::new();
        for port in self.ports {
            tasks.spawn(port.accept(self.shared.clone(), shutdown.clone()));
        }
        if let Some(socket) = self.datagrams {
            let (shared, shutdown) = (self.shared.clone(), shutdown.clone());
            tasks.spawn(async move {
                let serving = plain::serve_udp(socket, &shared.context);
                shutdown.run_until_cancelled(serving).await;
            });
        }
        while tasks.join_next().await.is_some() {}
    }
}

impl Port {
    async fn bind(
        port: u16,
        name: &'static str,
        tls: Option<TlsAcceptor>,
        serves: Serves,
    ) -> Result<Self, ServeError> {
        let failed = |source| ServeError::Listen { port, name, source };
        // Both families where the kernel has both; in a pod without IPv6 only the old one.
        let listener = match TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await {
            Ok(listener) => listener,
            Err(_) => TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))
                .await
                .map_err(failed)?,
        };
        let port = listener.local_addr().map_err(failed)?.port();
        log::line(format_args!(
            "Starting server, listening on port {port} ({name})"
        ));
        Ok(Self {
            listener,
            tls,
            serves,
        })
    }

    /// Takes connections until the shutdown, then waits for those that are busy.
    async fn accept(self, shared: Arc<Shared>, shutdown: CancellationToken) {
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                () = shutdown.cancelled() => break,
                accepted = self.listener.accept() => accepted,
                Some(_) = connections.join_next() => continue,
            };
            let Ok((stream, peer)) = accepted else {
                // Out of descriptors, most likely: one is free again when a connection ends.
                connections.join_next().await;
                continue;
            };
            // An IPv4 client of a socket for both families is shown as what it is.
            let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
            let (shared, tls) = (shared.clone(), self.tls.clone());
            let (serves, shutdown) = (self.serves.clone(), shutdown.clone());
            connections.spawn(connection(stream, peer, tls, serves, shared, shutdown));
        }
        drop(self.listener);
        let drained = async { while connections.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(DRAIN, drained).await;
    }
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    tls: Option<TlsAcceptor>,
    serves: Serves,
    shared: Arc<Shared>,
    shutdown: CancellationToken,
) {
    // Small answers must not wait for acknowledgements of earlier ones.
    let _ = stream.set_nodelay(true);
    let Some(acceptor) = tls else {
        return speak(stream, peer, None, serves, shared, shutdown).await;
    };
    match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => {
            let facts = Arc::new(TlsFacts::of(stream.get_ref().1));
            speak(stream, peer, Some(facts), serves, shared, shutdown).await;
        }
        Ok(Err(error)) => log::line(format_args!("TLS handshake with {peer} failed: {error}")),
        Err(_) => log::line(format_args!("TLS handshake with {peer} took too long")),
    }
}

async fn speak(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: SocketAddr,
    tls: Option<Arc<TlsFacts>>,
    serves: Serves,
    shared: Arc<Shared>,
    shutdown: CancellationToken,
) {
    match serves {
        Serves::Http(kind) => {
            let connection = Connection {
                shared,
                peer,
                tls,
                kind,
            };
            speak_http(stream, connection, shutdown).await;
        }
        Serves::Lines { tcp_port, tls_port } => {
            let reply = plain::tcp_reply(&shared.context, (tcp_port, tls_port), tls.as_deref());
            let serving = plain::serve_tcp(stream, &reply, tls.is_some());
            shutdown.run_until_cancelled(serving).await;
        }
    }
}

async fn speak_http(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    connection: Connection,
    shutdown: CancellationToken,
) {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .max_buf_size(64 * 1024);
    builder.http2().timer(TokioTimer::new());
    let service = service_fn(move |request| http_server::handle(connection.clone(), request));
    let serving = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::pin!(serving);
    tokio::select! {
        // Errors are the client's: it went away, or spoke something else.
        _ = serving.as_mut() => {}
        () = shutdown.cancelled() => {
            serving.as_mut().graceful_shutdown();
            let _ = serving.await;
        }
    }
}

async fn bind_udp(port: u16) -> Result<UdpSocket, ServeError> {
    let socket = match UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port)).await {
        Ok(socket) => Ok(socket),
        Err(_) => UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).await,
    };
    let failed = |source| ServeError::Listen {
        port,
        name: "udp",
        source,
    };
    let socket = socket.map_err(failed)?;
    let port = socket.local_addr().map_err(failed)?.port();
    log::line(format_args!("UDP server listening on :{port}"));
    Ok(socket)
}

/// Why the server does not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("cannot listen on port {port} ({name})")]
    Listen {
        port: u16,
        name: &'static str,
        source: std::io::Error,
    },
    #[error("cannot serve TLS")]
    Tls(#[source] TlsError),
}
