//! Listeners: TLS, HTTP/1.1 and HTTP/2, and an end that lets requests finish.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use meshgate_certs::credential::CurrentCredential;
use rustls::server::danger::ClientCertVerifier;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;

use crate::route::{self, Peer};
use crate::server::Server;

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Also how long a connection may be idle: longer than clients keep theirs (90 s in Go and hyper), or requests would
/// meet a connection that is just being closed.
const HEADER_TIMEOUT: Duration = Duration::from_secs(120);
/// An HTTP/2 client that does not answer a ping for this long is gone.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(15);
/// Open connections over all listeners; the next one waits in the kernel's queue.
const CONNECTIONS_MAX: usize = 8192;
/// Streams per HTTP/2 connection, as in Kubernetes.
const STREAMS_MAX: u32 = 250;
/// Bytes of a request's head.
const HEAD_BYTES_MAX: u32 = 1024 * 1024;
/// After an error of accept that lasts (no descriptors left), before it is tried again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long requests under way may still take at the end.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// The server's TLS configuration: certificates of clients are optional, its own may be renewed.
pub(crate) fn tls(
    verifier: Arc<dyn ClientCertVerifier>,
    credential: CurrentCredential,
) -> Result<TlsAcceptor, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(credential));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Serves until shutdown, then lets requests finish.
pub(crate) async fn serve(server: Arc<Server>, listeners: Vec<TcpListener>, tls: TlsAcceptor) {
    let tasks = TaskTracker::new();
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    for listener in listeners {
        let accepting = accept(
            Arc::clone(&server),
            listener,
            tls.clone(),
            Arc::clone(&places),
            tasks.clone(),
        );
        tasks.spawn(accepting);
    }
    server.shutdown.cancelled().await;
    tasks.close();
    if tokio::time::timeout(DRAIN_TIMEOUT, tasks.wait())
        .await
        .is_err()
    {
        tracing::warn!(
            connections = tasks.len(),
            "some requests did not end in time and are cut"
        );
    }
}

async fn accept(
    server: Arc<Server>,
    listener: TcpListener,
    tls: TlsAcceptor,
    places: Arc<Semaphore>,
    tasks: TaskTracker,
) {
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        let accepted = tokio::select! {
            () = server.shutdown.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, from)) => {
                let (server, tls) = (Arc::clone(&server), tls.clone());
                tasks.spawn(async move {
                    if let Err(error) = connection(server, stream, tls).await {
                        tracing::debug!(%from, %error, "a connection ended badly");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(
    server: Arc<Server>,
    stream: TcpStream,
    tls: TlsAcceptor,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    // Watch events are small and wanted at once.
    stream.set_nodelay(true)?;
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, "the TLS handshake took too long");
    let stream = tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.accept(stream))
        .await
        .map_err(late)??;
    let peer: Peer = Arc::new(
        stream
            .get_ref()
            .1
            .peer_certificates()
            .unwrap_or_default()
            .iter()
            .map(|certificate| certificate.clone().into_owned())
            .collect(),
    );
    let shutdown = server.shutdown.clone();
    let service = service_fn(move |request| {
        let (server, peer) = (Arc::clone(&server), Arc::clone(&peer));
        async move { Ok::<_, Infallible>(route::handle(server, peer, request).await) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEAD_BYTES_MAX)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    let connection = builder
        .serve_connection(TokioIo::new(stream), service)
        .into_owned();
    tokio::pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => return ended,
        () = shutdown.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    // Requests under way end, watches have ended with the same signal, new requests are refused.
    connection.await
}

/// Adopts a listener that somebody else opened.
pub(crate) fn adopt(listener: std::net::TcpListener) -> io::Result<(TcpListener, SocketAddr)> {
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    Ok((TcpListener::from_std(listener)?, address))
}
