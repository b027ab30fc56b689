//! TLS of the node's API: clients need a certificate of the cluster's CA, and the right name in it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::ServeError;

/// Members may do everything.
const MASTERS: &str = "system:masters";

/// Files of the server's identity.
#[derive(Debug, Clone)]
pub(crate) struct ServingFiles {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
    pub(crate) client_ca: PathBuf,
}

pub(super) fn acceptor(files: &ServingFiles) -> Result<TlsAcceptor, ServeError> {
    let wrong = |path: &Path, why: String| ServeError::Certificate {
        path: path.to_owned(),
        why,
    };
    let certificates = |path: &Path| -> Result<Vec<CertificateDer<'static>>, ServeError> {
        CertificateDer::pem_file_iter(path)
            .and_then(Iterator::collect)
            .map_err(|error| wrong(path, error.to_string()))
    };
    let mut roots = RootCertStore::empty();
    for root in certificates(&files.client_ca)? {
        roots
            .add(root)
            .map_err(|error| wrong(&files.client_ca, error.to_string()))?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()
            .map_err(|error| wrong(&files.client_ca, error.to_string()))?;
    let chain = certificates(&files.cert)?;
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .map_err(|error| wrong(&files.key, error.to_string()))?;
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(&files.cert, error.to_string()))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(|error| wrong(&files.cert, error.to_string()))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Whether the client may call. Every part of the cluster has a certificate of this CA, other nodes among them: only the
/// API server, which asks who may read a log, and administrators pass.
pub(super) fn may_call(tls: &TlsStream<TcpStream>) -> bool {
    let (_, connection) = tls.get_ref();
    let Some(leaf) = connection
        .peer_certificates()
        .and_then(|chain| chain.first())
    else {
        return false;
    };
    let Ok((_, leaf)) = X509Certificate::from_der(leaf) else {
        return false;
    };
    let subject = leaf.subject();
    let named = subject.iter_common_name().any(|name| {
        name.as_str()
            .is_ok_and(|name| name == meshgate_certs::cluster::KUBELET_CLIENT)
    });
    let master = subject
        .iter_organization()
        .any(|name| name.as_str().is_ok_and(|name| name == MASTERS));
    named || master
}
