//! Requests that the API server makes itself: to webhooks, and to nodes for logs.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

/// For one address; the caller's own deadline covers the whole exchange.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// TLS configurations of the server as a client.
#[derive(Debug)]
pub(crate) struct Outbound {
    /// Trusts the cluster's CA, shows no certificate.
    cluster: Arc<rustls::ClientConfig>,
    /// Trusts the cluster's CA, shows the certificate that nodes know.
    nodes: Arc<rustls::ClientConfig>,
}

/// Why a request to somebody else failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OutboundError {
    #[error("{0} is no server name")]
    Name(String),
    #[error("no address to connect to")]
    NoAddress,
    #[error("cannot connect to {address}: {source}")]
    Connect {
        address: SocketAddr,
        source: std::io::Error,
    },
    #[error("{address} does not answer")]
    ConnectTimeout { address: SocketAddr },
    #[error("TLS with {address} failed: {source}")]
    Tls {
        address: SocketAddr,
        source: std::io::Error,
    },
    #[error("the request failed: {0}")]
    Http(#[from] hyper::Error),
}

/// Why a TLS configuration cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Not PEM.
    #[error("not readable as PEM: {0}")]
    Pem(#[from] rustls_pki_types::pem::Error),
    /// Refused by rustls.
    #[error(transparent)]
    Rustls(#[from] rustls::Error),
    /// Nothing in it.
    #[error("there is no certificate in it")]
    Empty,
}

impl Outbound {
    pub(crate) fn new(
        ca_pem: &[u8],
        certificate_pem: &[u8],
        key_pem: &[u8],
    ) -> Result<Outbound, TlsError> {
        let chain =
            CertificateDer::pem_slice_iter(certificate_pem).collect::<Result<Vec<_>, _>>()?;
        let key = PrivateKeyDer::from_pem_slice(key_pem)?;
        let nodes = builder()?
            .with_root_certificates(roots(ca_pem)?)
            .with_client_auth_cert(chain, key)?;
        Ok(Outbound {
            cluster: client(ca_pem)?,
            nodes: Arc::new(nodes),
        })
    }

    /// For servers with a certificate of the cluster's CA.
    pub(crate) fn cluster_tls(&self) -> Arc<rustls::ClientConfig> {
        Arc::clone(&self.cluster)
    }

    /// For node agents.
    pub(crate) fn node_tls(&self) -> Arc<rustls::ClientConfig> {
        Arc::clone(&self.nodes)
    }

    /// For servers with a certificate of these roots.
    pub(crate) fn tls_with(&self, ca_pem: &[u8]) -> Result<Arc<rustls::ClientConfig>, TlsError> {
        client(ca_pem)
    }

    /// Sends a request to the first of the addresses that takes the connection.
    pub(crate) async fn send(
        &self,
        addresses: &[SocketAddr],
        server_name: &str,
        tls: Arc<rustls::ClientConfig>,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Answer>, OutboundError> {
        let name = ServerName::try_from(server_name.to_owned())
            .map_err(|_| OutboundError::Name(server_name.to_owned()))?;
        let (stream, address) = connect(addresses).await?;
        let stream = TlsConnector::from(tls).connect(name, stream).await;
        let stream = stream.map_err(|source| OutboundError::Tls { address, source })?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        // The connection lives as long as its answer is read.
        let connection = AbortOnDropHandle::new(tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "an outbound connection ended badly");
            }
        }));
        let response = sender.send_request(request).await?;
        Ok(response.map(|body| Answer {
            body,
            _connection: connection,
        }))
    }
}

async fn connect(addresses: &[SocketAddr]) -> Result<(TcpStream, SocketAddr), OutboundError> {
    let mut last = OutboundError::NoAddress;
    for &address in addresses {
        match tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                // One small request: it should leave at once.
                stream
                    .set_nodelay(true)
                    .map_err(|source| OutboundError::Connect { address, source })?;
                return Ok((stream, address));
            }
            Ok(Err(source)) => last = OutboundError::Connect { address, source },
            Err(_) => last = OutboundError::ConnectTimeout { address },
        }
    }
    Err(last)
}

fn builder()
-> Result<rustls::ConfigBuilder<rustls::ClientConfig, rustls::WantsVerifier>, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()
}

fn client(ca_pem: &[u8]) -> Result<Arc<rustls::ClientConfig>, TlsError> {
    Ok(Arc::new(
        builder()?
            .with_root_certificates(roots(ca_pem)?)
            .with_no_client_auth(),
    ))
}

fn roots(ca_pem: &[u8]) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca_pem) {
        roots.add(certificate?)?;
    }
    if roots.is_empty() {
        Err(TlsError::Empty)
    } else {
        Ok(roots)
    }
}

/// The body of an answer, with the connection that it comes over.
#[derive(Debug)]
pub(crate) struct Answer {
    body: Incoming,
    _connection: AbortOnDropHandle<()>,
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}
