//! Certificates that the edge demands of clients, by server name, and what a client proved with its own.

use std::fmt;
use std::sync::Arc;

use meshgate_certs::client::ClientIdentity;
use meshgate_certs::identity::IdentityError;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use thiserror::Error;

/// What a client must prove to reach a host. Equal when the same roots are demanded in the same way.
pub struct ClientAuth {
    verifier: Arc<dyn ClientCertVerifier>,
    /// In order, each once.
    roots: Vec<CertificateDer<'static>>,
    required: bool,
}

/// Why certificates of clients cannot be verified.
#[derive(Debug, Error)]
pub enum ClientAuthProblem {
    /// The roots are no PEM.
    #[error("the roots are not readable PEM")]
    Pem(#[source] rustls::pki_types::pem::Error),
    /// Nobody could be let in.
    #[error("there is no certificate in the roots")]
    Empty,
    /// More than anybody verifies a handshake against.
    #[error("there are {0} roots, more than {ROOTS_MAX}")]
    TooMany(usize),
    /// One of them is no certificate of an authority.
    #[error("one of the roots cannot be a root")]
    Root(#[source] rustls::Error),
    /// The library's own opinion.
    #[error("the roots cannot be verified against")]
    Verifier(#[source] VerifierBuilderError),
}

/// Their names travel in each handshake (RFC 8446 §4.2.4), which has 64 KiB for them.
const ROOTS_MAX: usize = 128;

impl ClientAuth {
    /// Demands a certificate that one of these roots signed. Where it is not required, a client may show none, but no wrong
    /// one.
    pub fn new(roots_pem: &str, required: bool) -> Result<Self, ClientAuthProblem> {
        let mut roots = CertificateDer::pem_slice_iter(roots_pem.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(ClientAuthProblem::Pem)?;
        roots.sort_unstable_by(|a, b| a.as_ref().cmp(b.as_ref()));
        roots.dedup();
        match roots.len() {
            0 => return Err(ClientAuthProblem::Empty),
            1..=ROOTS_MAX => {}
            many => return Err(ClientAuthProblem::TooMany(many)),
        }
        let mut store = RootCertStore::empty();
        for root in &roots {
            store.add(root.clone()).map_err(ClientAuthProblem::Root)?;
        }
        let provider = Arc::new(super::provider());
        let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(store), provider);
        let builder = match required {
            true => builder,
            false => builder.allow_unauthenticated(),
        };
        let verifier = builder.build().map_err(ClientAuthProblem::Verifier)?;
        Ok(Self {
            verifier,
            roots,
            required,
        })
    }

    pub(super) fn verifier(&self) -> Arc<dyn ClientCertVerifier> {
        self.verifier.clone()
    }
}

impl PartialEq for ClientAuth {
    fn eq(&self, other: &Self) -> bool {
        (self.required, &self.roots) == (other.required, &other.roots)
    }
}

impl Eq for ClientAuth {}

impl fmt::Debug for ClientAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientAuth")
            .field("roots", &self.roots.len())
            .field("required", &self.required)
            .finish()
    }
}

/// What a client of the edge proved in its handshake.
#[derive(Clone, Debug)]
pub(crate) enum ClientProof {
    /// Nobody asked for a certificate, or there was no handshake.
    NotAsked,
    /// It was asked, and had to show none.
    Absent(Arc<ClientAuth>),
    /// It is who its certificate says.
    Verified(Arc<Verified>),
}

/// A client that was verified.
#[derive(Debug)]
pub(crate) struct Verified {
    by: Arc<ClientAuth>,
    identity: ClientIdentity,
}

impl ClientProof {
    /// After a handshake that demanded this, and in which the client showed that chain (leaf first).
    pub(crate) fn of(
        demanded: Option<Arc<ClientAuth>>,
        chain: Option<&[CertificateDer<'_>]>,
    ) -> Result<Self, IdentityError> {
        let Some(by) = demanded else {
            return Ok(Self::NotAsked);
        };
        Ok(match chain.and_then(<[_]>::first) {
            None => Self::Absent(by),
            Some(leaf) => Self::Verified(Arc::new(Verified {
                by,
                identity: ClientIdentity::of_certificate(leaf)?,
            })),
        })
    }

    /// Who the client is.
    pub(crate) fn identity(&self) -> Option<&ClientIdentity> {
        match self {
            Self::Verified(verified) => Some(&verified.identity),
            Self::NotAsked | Self::Absent(_) => None,
        }
    }

    /// Whether the handshake demanded just what a host demands now. A client without TLS could show nothing, and may come
    /// where nothing is required.
    pub(crate) fn is_for(&self, host: Option<&ClientAuth>, tls: bool) -> bool {
        match (self.demanded(), host) {
            (Some(demanded), Some(host)) => demanded == host,
            (None, Some(host)) => !tls && !host.required,
            (Some(_), None) => false,
            (None, None) => true,
        }
    }

    fn demanded(&self) -> Option<&ClientAuth> {
        match self {
            Self::NotAsked => None,
            Self::Absent(by) => Some(by),
            Self::Verified(verified) => Some(&verified.by),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{ClientAuth, ClientProof};

    fn root() -> String {
        let root = rcgen::generate_simple_self_signed(vec!["root.test".to_owned()]).unwrap();
        root.cert.pem()
    }

    #[test]
    fn demands_are_equal_by_what_they_demand() {
        let (one, other) = (root(), root());
        let auth = |roots: &[&str], required| ClientAuth::new(&roots.concat(), required).unwrap();
        assert_eq!(
            auth(&[&one, &other], true),
            auth(&[&other, &one, &one], true)
        );
        assert_ne!(auth(&[&one, &other], true), auth(&[&one], true));
        assert_ne!(auth(&[&one], false), auth(&[&one], true));
    }

    #[test]
    fn a_connection_serves_hosts_that_demand_the_same() {
        let required = ClientAuth::new(&root(), true).unwrap();
        let optional = ClientAuth::new(&root(), false).unwrap();
        let asked = ClientProof::Absent(Arc::new(ClientAuth::new(&root(), true).unwrap()));
        let not_asked = ClientProof::NotAsked;
        for (proof, host, tls, expected) in [
            (&not_asked, None, true, true),
            (&not_asked, None, false, true),
            (&not_asked, Some(&required), true, false),
            (&not_asked, Some(&required), false, false),
            (&not_asked, Some(&optional), true, false),
            (&not_asked, Some(&optional), false, true),
            (&asked, None, true, false),
            (&asked, Some(&required), true, false),
        ] {
            assert_eq!(
                proof.is_for(host, tls),
                expected,
                "{proof:?} {host:?} {tls}"
            );
        }
    }
}
