//! TLS at both ends: certificates by server name for the edge, workload identity for the mesh.

mod client_auth;
pub mod origin;
mod schedule;

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use meshgate_routing::route::{HostName, HostProblem, Precision};
use meshgate_routing::{Configured, WorkloadId};
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::crypto::hash::HashAlgorithm;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{
    ClientHello, NoServerSessionStorage, ResolvesServerCert, ServerConfig, WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::{CipherSuite, SupportedCipherSuite};
use thiserror::Error;

pub(crate) use client_auth::ClientProof;
pub use client_auth::{Authorities, ClientAuth, ClientAuthProblem};

use crate::snapshot::Snapshot;

/// Certificates of the edge, by server name, and those that it demands of clients.
#[derive(Debug, Default)]
pub struct Certificates {
    exact: Configured<Box<str>, Served>,
    wildcard: Configured<Box<str>, Served>,
    default: Option<Served>,
    /// Whether any host demands a certificate of its clients.
    demanding: bool,
}

/// How a server name is served.
#[derive(Debug)]
struct Served {
    key: Arc<CertifiedKey>,
    client_auth: Option<Arc<ClientAuth>>,
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
        self.add_demanding(host, key, None)
    }

    /// The same for a host that demands a certificate of its clients.
    pub fn add_demanding(
        &mut self,
        host: &str,
        key: Arc<CertifiedKey>,
        client_auth: Option<Arc<ClientAuth>>,
    ) -> Result<(), HostProblem> {
        self.demanding |= client_auth.is_some();
        let served = Served { key, client_auth };
        match HostName::parse(host)? {
            HostName::Exact(name) => {
                self.exact.entry(name).or_insert(served);
            }
            HostName::Wildcard(suffix) => {
                self.wildcard.entry(suffix).or_insert(served);
            }
            HostName::Any => {
                self.default.get_or_insert(served);
            }
        }
        Ok(())
    }

    /// The certificate for a server name (lower case; empty when the client named none).
    pub fn find(&self, name: &str) -> Option<&Arc<CertifiedKey>> {
        self.served(name).map(|served| &served.key)
    }

    /// What clients that ask for a server name (as for [`Self::find`]) must prove.
    pub fn client_auth(&self, name: &str) -> Option<&Arc<ClientAuth>> {
        self.served(name)?.client_auth.as_ref()
    }

    /// What clients must prove for requests to a host, in any case and without the dot of the root.
    pub(crate) fn client_auth_of_host(&self, host: &str) -> Option<&Arc<ClientAuth>> {
        self.client_auth_of_rules(host, Precision::Exact)
    }

    /// What clients must prove for rules so precise that a request to a host (as above) came to.
    pub(crate) fn client_auth_of_rules(
        &self,
        host: &str,
        precision: Precision,
    ) -> Option<&Arc<ClientAuth>> {
        // Most edges have none, and this is asked for every request.
        if !self.demanding {
            return None;
        }
        let name = host.to_ascii_lowercase();
        let served = match precision {
            Precision::Exact => self.served(&name),
            Precision::Wildcard => self.of_wildcard(&name).or(self.default.as_ref()),
            Precision::Any => self.default.as_ref(),
        };
        served?.client_auth.as_ref()
    }

    fn served(&self, name: &str) -> Option<&Served> {
        self.exact
            .get(name)
            .or_else(|| self.of_wildcard(name))
            .or(self.default.as_ref())
    }

    fn of_wildcard(&self, name: &str) -> Option<&Served> {
        self.wildcard.get(&name[name.find('.')?..])
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
            None => certificates.find("").cloned(),
        }
    }
}

/// The edge's side of TLS: 1.2 and 1.3, h2 and http/1.1. An unknown name ends the handshake.
#[derive(Debug)]
pub(crate) struct EdgeTls {
    by_our_order: Arc<ServerConfig>,
    by_theirs: Arc<ServerConfig>,
}

impl EdgeTls {
    /// Sessions are resumed by tickets, whichever worker made them; their keys live in memory and change by themselves.
    pub(crate) fn new(snapshot: Arc<ArcSwap<Snapshot>>) -> Result<Self, rustls::Error> {
        let mut config = edge_config(
            Arc::new(provider()),
            WebPkiClientVerifier::no_client_auth(),
            Arc::new(FromSnapshot(snapshot)),
        )?;
        config.ticketer = Ticketer::new()?;
        // Each costs every handshake; most clients never use a second.
        config.send_tls13_tickets = 1;
        let by_theirs = Arc::new(config.clone());
        config.ignore_client_order = true;
        Ok(Self {
            by_our_order: Arc::new(config),
            by_theirs,
        })
    }

    /// We choose the cipher, unless the client says that ChaCha20 suits it best: it has no instructions for AES.
    pub(crate) fn config(&self, offered: &[CipherSuite]) -> &Arc<ServerConfig> {
        let suites = self.by_theirs.crypto_provider().cipher_suites.iter();
        let known = |offer: &CipherSuite| suites.clone().find(|suite| suite.suite() == *offer);
        match offered.iter().find_map(known) {
            Some(first) if is_chacha(first) => &self.by_theirs,
            _ => &self.by_our_order,
        }
    }

    /// The same for a name that demands a certificate of its clients. Made for each handshake: that costs little beside
    /// verifying a chain.
    ///
    /// No session is resumed: a ticket would bring back what its client proved when something else is demanded by now, or
    /// bring a client here that was never asked.
    pub(crate) fn demanding(
        &self,
        authorities: &Authorities,
        offered: &[CipherSuite],
    ) -> Result<Arc<ServerConfig>, rustls::Error> {
        let usual = self.config(offered);
        let mut config = edge_config(
            usual.crypto_provider().clone(),
            authorities.verifier(),
            usual.cert_resolver.clone(),
        )?;
        config.ignore_client_order = usual.ignore_client_order;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Arc::new(config))
    }
}

/// What all configurations of the edge have in common. It has no tickets yet.
fn edge_config(
    provider: Arc<CryptoProvider>,
    verifier: Arc<dyn ClientCertVerifier>,
    resolver: Arc<dyn ResolvesServerCert>,
) -> Result<ServerConfig, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(resolver);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// What TLS is made of here: AES-128 with SHA-256 comes before AES-256 with SHA-384. Common processors have instructions
/// for the one hash and not for the other, and the hash is a large part of a handshake.
pub(crate) fn provider() -> CryptoProvider {
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    for suite in &mut provider.cipher_suites {
        *suite = schedule::prepared(*suite);
    }
    provider.cipher_suites.sort_by_key(|suite| {
        let hash = match suite {
            SupportedCipherSuite::Tls12(suite) => suite.common.hash_provider,
            SupportedCipherSuite::Tls13(suite) => suite.common.hash_provider,
        };
        (is_chacha(suite), hash.algorithm() != HashAlgorithm::SHA256)
    });
    provider
}

fn is_chacha(suite: &SupportedCipherSuite) -> bool {
    use CipherSuite as Suite;
    matches!(
        suite.suite(),
        Suite::TLS13_CHACHA20_POLY1305_SHA256
            | Suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
            | Suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256
    )
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

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(offered: &[CipherSuite], ours: bool) {
        let tls = EdgeTls::new(Arc::default()).unwrap();
        assert_eq!(tls.config(offered).ignore_client_order, ours, "{offered:?}");
    }

    #[test]
    fn the_client_chooses_where_aes_does_not_suit_it() {
        use CipherSuite as Suite;
        let (aes, chacha) = (
            Suite::TLS13_AES_256_GCM_SHA384,
            Suite::TLS13_CHACHA20_POLY1305_SHA256,
        );
        let grease = Suite::Unknown(0x0a0a);
        check(&[aes, chacha], true);
        check(&[chacha, aes], false);
        check(&[grease, chacha, aes], false);
        check(&[grease], true);
        check(&[], true);
    }

    #[test]
    fn the_cheapest_hash_comes_first() {
        let suites = provider().cipher_suites;
        let first = |version: &rustls::SupportedProtocolVersion| {
            let mut of_version = suites.iter().filter(|suite| suite.version() == version);
            of_version.next().map(SupportedCipherSuite::suite)
        };
        assert_eq!(
            first(&rustls::version::TLS13),
            Some(CipherSuite::TLS13_AES_128_GCM_SHA256)
        );
        assert_eq!(
            first(&rustls::version::TLS12),
            Some(CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256)
        );
        let all = rustls::crypto::aws_lc_rs::default_provider().cipher_suites;
        assert_eq!(suites.len(), all.len());
    }
}
