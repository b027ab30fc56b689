//! TLS at both ends: certificates by server name for the edge, workload identity for the mesh.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use meshgate_routing::WorkloadId;
use meshgate_routing::route::{HostName, HostProblem};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert, ServerConfig};
use rustls::sign::CertifiedKey;
use thiserror::Error;

use crate::snapshot::Snapshot;

/// Certificates of the edge, by server name.
#[derive(Debug, Default)]
pub struct Certificates {
    exact: HashMap<Box<str>, Arc<CertifiedKey>>,
    wildcard: HashMap<Box<str>, Arc<CertifiedKey>>,
    default: Option<Arc<CertifiedKey>>,
}

/// Why a certificate cannot be served.
#[derive(Debug, Error)]
pub enum CertificateProblem {
    /// The chain is no PEM.
    #[error("the certificate chain is not readable PEM")]
    Chain(#[source] rustls::pki_types::pem::Error),
    /// There is none.
    #[error("there is no certificate in the chain")]
    Empty,
    /// The key is no PEM.
    #[error("the private key is not readable PEM")]
    Key(#[source] rustls::pki_types::pem::Error),
    /// Unknown algorithm, or it belongs to another certificate.
    #[error("the private key cannot be used with this certificate")]
    Mismatch(#[source] rustls::Error),
    /// A host is none.
    #[error(transparent)]
    Host(#[from] HostProblem),
}

/// Reads a chain (leaf first) and its key.
pub fn certified_key(
    chain_pem: &str,
    key_pem: &str,
) -> Result<Arc<CertifiedKey>, CertificateProblem> {
    let chain = CertificateDer::pem_slice_iter(chain_pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(CertificateProblem::Chain)?;
    if chain.is_empty() {
        return Err(CertificateProblem::Empty);
    }
    let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).map_err(CertificateProblem::Key)?;
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    CertifiedKey::from_der(chain, key, &provider)
        .map(Arc::new)
        .map_err(CertificateProblem::Mismatch)
}

impl Certificates {
    /// Adds a certificate for a host (`a.test`, `*.a.test`); the first for a host stays. `*` makes it the one for
    /// names that nobody has.
    pub fn add(&mut self, host: &str, key: Arc<CertifiedKey>) -> Result<(), HostProblem> {
        match HostName::parse(host)? {
            HostName::Exact(name) => {
                self.exact.entry(name).or_insert(key);
            }
            HostName::Wildcard(suffix) => {
                self.wildcard.entry(suffix).or_insert(key);
            }
            HostName::Any => {
                self.default.get_or_insert(key);
            }
        }
        Ok(())
    }

    /// The certificate for a server name (lower case; empty when the client named none).
    pub fn find(&self, name: &str) -> Option<&Arc<CertifiedKey>> {
        let of_wildcard = || self.wildcard.get(&name[name.find('.')?..]);
        self.exact
            .get(name)
            .or_else(of_wildcard)
            .or(self.default.as_ref())
    }
}

/// Chooses from the snapshot of the moment, so a replaced certificate is served from the next handshake on.
struct FromSnapshot(Arc<ArcSwap<Snapshot>>);

impl fmt::Debug for FromSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FromSnapshot")
    }
}

impl ResolvesServerCert for FromSnapshot {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let snapshot = self.0.load();
        let certificates = &snapshot.certificates;
        match hello.server_name() {
            Some(name) => certificates.find(&name.to_ascii_lowercase()).cloned(),
            None => certificates.default.clone(),
        }
    }
}

/// The edge's side of TLS: 1.2 and 1.3, h2 and http/1.1. An unknown name ends the handshake.
pub(crate) fn edge_config(
    snapshot: Arc<ArcSwap<Snapshot>>,
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(FromSnapshot(snapshot)));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// How a proxy proves who it is and learns who its peers are.
///
/// The engine asks after every handshake for the peer's identity and compares it with the one it expects, before a
/// byte of a request is sent; the configurations themselves only have to prove that the peer belongs to the mesh.
#[derive(Clone)]
pub struct MeshTls {
    /// Who this proxy is.
    pub identity: WorkloadId,
    /// For port 15008: demands a certificate of the mesh, ALPN h2.
    pub server: Arc<ServerConfig>,
    /// Towards other proxies: presents this proxy's certificate, accepts certificates of the mesh, ALPN h2.
    pub client: Arc<rustls::ClientConfig>,
    /// Reads the identity from a verified chain.
    pub identify: Identify,
}

/// Reads the identity from a verified chain (leaf first).
pub type Identify = Arc<dyn Fn(&[CertificateDer<'_>]) -> Result<WorkloadId, String> + Send + Sync>;

impl fmt::Debug for MeshTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MeshTls")
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}
