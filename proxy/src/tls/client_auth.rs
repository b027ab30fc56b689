//! Certificates that the edge demands of clients, by server name, and what a client proved with its own.

use std::fmt;
use std::sync::Arc;

use meshgate_certs::client::ClientIdentity;
use meshgate_certs::identity::IdentityError;
use meshgate_certs::origin::{NoAuthorities, authorities};
use rustls::pki_types::{CertificateDer, TrustAnchor};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use thiserror::Error;

/// What a client must prove to reach a host.
#[derive(Debug)]
pub enum ClientAuth {
    /// That one of these authorities named it.
    Named(Authorities),
    /// Nobody can, and why: the demand cannot be enforced as it is.
    Refused(Box<str>),
}

/// Authorities that name clients.
pub struct Authorities {
    verifier: Arc<dyn ClientCertVerifier>,
    /// Each once.
    roots: Vec<TrustAnchor<'static>>,
    required: bool,
}

/// Why certificates of clients cannot be verified.
#[derive(Debug, Error)]
pub enum ClientAuthProblem {
    /// The text holds no authorities.
    #[error(transparent)]
    Authorities(#[from] NoAuthorities),
    /// More than anybody verifies a handshake against.
    #[error("there are {0} roots, more than {ROOTS_MAX}")]
    TooMany(usize),
    /// Their names do not fit into a handshake.
    #[error("the names of the roots have {0} bytes, more than {NAMES_BYTES_MAX}")]
    LongNames(usize),
    /// The library's own opinion.
    #[error("the roots cannot be verified against")]
    Verifier(#[source] VerifierBuilderError),
}

/// Whoever has more means something else.
const ROOTS_MAX: usize = 128;
/// Their names travel in each handshake, in a list of less than 64 KiB (RFC 8446 §4.2.4) that is not alone in its message.
const NAMES_BYTES_MAX: usize = 60 * 1024;

impl ClientAuth {
    /// Demands a certificate that one of these roots signed. Where it is not required, a client may show none, but no wrong
    /// one.
    pub fn new(roots_pem: &str, required: bool) -> Result<Self, ClientAuthProblem> {
        let mut store = authorities(roots_pem.as_bytes())?;
        let mut roots = Vec::new();
        for root in std::mem::take(&mut store.roots) {
            if !roots.contains(&root) {
                roots.push(root);
            }
        }
        if roots.len() > ROOTS_MAX {
            return Err(ClientAuthProblem::TooMany(roots.len()));
        }
        store.roots.clone_from(&roots);
        // Each with its length before it.
        let names = store.subjects();
        let bytes = names.iter().map(|name| 2 + name.as_ref().len()).sum();
        if bytes > NAMES_BYTES_MAX {
            return Err(ClientAuthProblem::LongNames(bytes));
        }
        let provider = Arc::new(super::provider());
        let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(store), provider);
        let builder = match required {
            true => builder,
            false => builder.allow_unauthenticated(),
        };
        let verifier = builder.build().map_err(ClientAuthProblem::Verifier)?;
        Ok(Self::Named(Authorities {
            verifier,
            roots,
            required,
        }))
    }

    /// Why nobody can prove it.
    pub(crate) fn refused(&self) -> Option<&str> {
        match self {
            Self::Named(_) => None,
            Self::Refused(why) => Some(why),
        }
    }

    /// Whether a client without TLS may come: it could show nothing.
    fn asks_nothing_in_the_clear(&self) -> bool {
        matches!(self, Self::Named(authorities) if !authorities.required)
    }
}

impl Authorities {
    pub(super) fn verifier(&self) -> Arc<dyn ClientCertVerifier> {
        self.verifier.clone()
    }

    /// Whether who met this demand meets the other: one of its authorities named the client, or none had to.
    fn is_as_strict_as(&self, other: &Self) -> bool {
        let is_known = |root| other.roots.contains(root);
        std::ptr::eq(self, other)
            || self.required >= other.required && self.roots.iter().all(is_known)
    }
}

impl fmt::Debug for Authorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authorities")
            .field("roots", &self.roots.len())
            .field("required", &self.required)
            .finish()
    }
}

/// What a client of the edge proved in its handshake.
#[derive(Clone, Debug)]
pub(crate) enum ClientProof {
    /// Nobody asked for a certificate that could be verified, or there was no handshake.
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
        let Some(by) = demanded.filter(|demanded| demanded.refused().is_none()) else {
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

    /// Whether the handshake demanded what a host demands now, or more: fewer authorities, or a certificate where none is
    /// required. A client without TLS could show nothing, and may come where nothing is required.
    pub(crate) fn is_for(&self, host: Option<&ClientAuth>, tls: bool) -> bool {
        match (self.demanded(), host) {
            (Some(ClientAuth::Named(met)), Some(ClientAuth::Named(host))) => {
                met.is_as_strict_as(host)
            }
            (None, Some(host)) => !tls && host.asks_nothing_in_the_clear(),
            (Some(_), _) => false,
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
mod tests;
