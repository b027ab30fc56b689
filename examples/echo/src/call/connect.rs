//! Connections to the target of a URL, with or without TLS.

use std::io;
use std::sync::Arc;

use http::Uri;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{CallError, CallOptions};

/// Where distributions keep their roots.
const SYSTEM_ROOTS: [&str; 3] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
];

/// A byte stream, encrypted or not.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Host, port, and how to encrypt.
#[derive(Clone)]
pub(super) struct Target {
    host: String,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

impl Target {
    pub(super) fn of(uri: &Uri, options: &CallOptions) -> Result<Self, CallError> {
        let (Some(scheme), Some(host)) = (uri.scheme_str(), uri.host()) else {
            return Err(CallError::Incomplete);
        };
        let (is_tls, default_port) = match scheme {
            "http" => (false, Some(80)),
            "https" => (true, Some(443)),
            "grpc" | "tcp" => (false, None),
            _ => return Err(CallError::Incomplete),
        };
        let port = uri
            .port_u16()
            .or(default_port)
            .ok_or(CallError::Incomplete)?;
        let host = host.trim_matches(['[', ']']).to_owned();
        let tls = if is_tls {
            let name = ServerName::try_from(host.clone()).map_err(|_| CallError::Incomplete)?;
            let config = client_config(options).map_err(CallError::Tls)?;
            Some((TlsConnector::from(Arc::new(config)), name))
        } else {
            None
        };
        Ok(Self { host, port, tls })
    }

    pub(super) async fn connect(&self) -> Result<Box<dyn Stream>, ConnectError> {
        let at = || format!("{}:{}", self.host, self.port);
        let stream = TcpStream::connect((self.host.as_str(), self.port))
            .await
            .map_err(|source| ConnectError::Tcp { at: at(), source })?;
        let _ = stream.set_nodelay(true);
        let Some((connector, name)) = &self.tls else {
            return Ok(Box::new(stream));
        };
        let stream = connector
            .connect(name.clone(), stream)
            .await
            .map_err(|source| ConnectError::Tls { at: at(), source })?;
        Ok(Box::new(stream))
    }
}

fn client_config(options: &CallOptions) -> Result<ClientConfig, RootsError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(RootsError::Tls)?;
    let mut config = if options.insecure {
        let any = Arc::new(AnyCertificate(provider));
        builder.dangerous().with_custom_certificate_verifier(any)
    } else {
        builder.with_root_certificates(roots(options)?)
    }
    .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn roots(options: &CallOptions) -> Result<RootCertStore, RootsError> {
    let pem = match (&options.ca_pem, std::env::var_os("SSL_CERT_FILE")) {
        (Some(pem), _) => pem.clone().into_bytes(),
        (None, Some(file)) => std::fs::read(file).map_err(RootsError::Read)?,
        (None, None) => SYSTEM_ROOTS
            .iter()
            .find_map(|file| std::fs::read(file).ok())
            .ok_or(RootsError::None)?,
    };
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(&pem) {
        let root = root.map_err(|_| RootsError::NotPem)?;
        // The system's may include some that are too old for us: the others count.
        if let Err(error) = roots.add(root)
            && options.ca_pem.is_some()
        {
            return Err(RootsError::Tls(error));
        }
    }
    if roots.is_empty() {
        return Err(RootsError::None);
    }
    Ok(roots)
}

/// For `--insecure`: the handshake is checked, the certificate is not.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _leaf: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, leaf, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, leaf, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    #[error("cannot connect to {at}")]
    Tcp { at: String, source: io::Error },
    #[error("no TLS with {at}")]
    Tls { at: String, source: io::Error },
}

/// Why a server's certificate cannot be verified.
#[derive(Debug, thiserror::Error)]
pub enum RootsError {
    #[error("there are no roots to verify certificates with: set SSL_CERT_FILE, or use --insecure")]
    None,
    #[error("cannot read the file that SSL_CERT_FILE names")]
    Read(#[source] io::Error),
    #[error("the roots are not PEM")]
    NotPem,
    #[error("the roots cannot be used")]
    Tls(#[source] rustls::Error),
}
