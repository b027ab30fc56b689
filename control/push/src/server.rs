//! TLS listeners: handshakes run beside each other and end in time.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use meshgate_certs::{identity::SpiffeId, verify::DownstreamVerifier};
use rustls::{
    DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
    task::JoinSet,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Connected;

/// A peer that has not finished its handshake by then is gone or means harm.
const HANDSHAKE_MAX: Duration = Duration::from_secs(5);
/// Handshakes at the same time: each costs CPU, more only wait for each other.
const HANDSHAKES_MAX: usize = 256;
/// After an accept error (no file descriptors left): long enough for some to come back.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Who is at the other end of a connection.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    /// From a certificate that was verified; none was shown otherwise.
    pub(crate) identity: Option<SpiffeId>,
}

/// A connection after its handshake.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TlsStream<TcpStream>,
    pub(crate) peer: Peer,
}

/// A serving certificate as rustls wants it.
pub(crate) fn server_config(
    chain_pem: &str,
    key_pem: &str,
    clients: Option<Arc<DownstreamVerifier>>,
    protocols: &[&str],
) -> Result<ServerConfig, rustls::Error> {
    let unreadable = |what: &str| rustls::Error::General(format!("the serving {what} is not PEM"));
    let chain = CertificateDer::pem_slice_iter(chain_pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| unreadable("certificate"))?;
    let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).map_err(|_| unreadable("key"))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let builder = match clients {
        Some(verifier) => builder.with_client_cert_verifier(Arc::new(Optional(verifier))),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_single_cert(chain, key)?;
    config.alpn_protocols = protocols
        .iter()
        .map(|protocol| protocol.as_bytes().to_vec())
        .collect();
    Ok(config)
}

/// Accepts until `shutdown`; connections whose handshake succeeded come out of the receiver.
pub(crate) fn accept(
    listener: TcpListener,
    config: ServerConfig,
    shutdown: CancellationToken,
) -> (mpsc::Receiver<Connection>, impl Future<Output = ()> + Send) {
    let (sender, receiver) = mpsc::channel(64);
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let permits = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    let run = async move {
        let mut handshakes = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                () = shutdown.cancelled() => break,
                Some(_) = handshakes.join_next(), if !handshakes.is_empty() => continue,
                accepted = async {
                    let permit = permits.clone().acquire_owned().await;
                    listener.accept().await.map(|accepted| (accepted, permit))
                } => accepted,
            };
            match accepted {
                Ok(((stream, address), permit)) => {
                    let acceptor = acceptor.clone();
                    let sender = sender.clone();
                    handshakes.spawn(async move {
                        let done = tokio::time::timeout(
                            HANDSHAKE_MAX,
                            handshake(&acceptor, stream, address),
                        )
                        .await;
                        drop(permit);
                        match done {
                            Ok(Ok(connection)) => drop(sender.send(connection).await),
                            Ok(Err(error)) => tracing::debug!(%address, %error, "handshake failed"),
                            Err(_) => tracing::debug!(%address, "handshake took too long"),
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept connections");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    };
    (receiver, run)
}

async fn handshake(
    acceptor: &TlsAcceptor,
    stream: TcpStream,
    address: SocketAddr,
) -> io::Result<Connection> {
    // Small messages that are waited for: no Nagle.
    stream.set_nodelay(true)?;
    let stream = acceptor.accept(stream).await?;
    let chain = stream.get_ref().1.peer_certificates();
    let identity = match chain {
        None => None,
        Some(chain) => Some(SpiffeId::of_peer(Some(chain)).map_err(io::Error::other)?),
    };
    Ok(Connection {
        stream,
        peer: Peer { address, identity },
    })
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// A workload that asks for its first certificate has none to show; one that is shown must be right.
#[derive(Debug)]
struct Optional(Arc<DownstreamVerifier>);

impl ClientCertVerifier for Optional {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.0.verify_client_cert(leaf, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, leaf, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, leaf, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
