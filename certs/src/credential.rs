//! A certificate chain with its private key, as rustls uses it, and the slot that renewal swaps.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::expiry::{Unreadable, Validity};
use crate::identity::{IdentityError, SpiffeId};

/// A chain (leaf first) and the key that belongs to the leaf.
pub struct Credential {
    certified: Arc<CertifiedKey>,
    validity: Validity,
}

impl Credential {
    /// Fails unless the key is the one the leaf certifies.
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Self, CredentialError> {
        let leaf = chain.first().ok_or(CredentialError::NoCertificate)?;
        let validity = Validity::of_certificate(leaf).map_err(CredentialError::Certificate)?;
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let certified =
            CertifiedKey::from_der(chain, key, &provider).map_err(CredentialError::Key)?;
        Ok(Self {
            certified: Arc::new(certified),
            validity,
        })
    }

    pub fn from_pem(chain_pem: &str, key_pem: &str) -> Result<Self, CredentialError> {
        let chain = CertificateDer::pem_slice_iter(chain_pem.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(CredentialError::ChainPem)?;
        let key =
            PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).map_err(CredentialError::KeyPem)?;
        Self::new(chain, key)
    }

    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.certified.cert
    }

    pub fn certified_key(&self) -> Arc<CertifiedKey> {
        self.certified.clone()
    }

    /// When the leaf is valid.
    pub fn validity(&self) -> Validity {
        self.validity
    }

    pub fn identity(&self) -> Result<SpiffeId, IdentityError> {
        SpiffeId::of_peer(Some(self.chain()))
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential")
            .field("validity", &self.validity)
            .finish_non_exhaustive()
    }
}

/// The credential in force. Connections made after [`CurrentCredential::replace`] present the new one; those that exist
/// keep what they negotiated.
#[derive(Clone, Debug, Default)]
pub struct CurrentCredential(Arc<ArcSwapOption<Credential>>);

impl CurrentCredential {
    /// Holds nothing yet: servers refuse handshakes, clients present no certificate.
    pub fn empty() -> Self {
        Self::default()
    }

    pub fn new(credential: Credential) -> Self {
        let slot = Self::empty();
        slot.replace(credential);
        slot
    }

    pub fn replace(&self, credential: Credential) {
        self.0.store(Some(Arc::new(credential)));
    }

    pub fn current(&self) -> Option<Arc<Credential>> {
        self.0.load_full()
    }
}

impl ResolvesServerCert for CurrentCredential {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.current().map(|credential| credential.certified_key())
    }
}

impl ResolvesClientCert for CurrentCredential {
    fn resolve(
        &self,
        _root_hints: &[&[u8]],
        _schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        self.current().map(|credential| credential.certified_key())
    }

    fn has_certs(&self) -> bool {
        self.0.load().is_some()
    }
}

/// Why a chain and a key do not make a credential.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    #[error("the chain has no certificate")]
    NoCertificate,
    #[error("the chain is not PEM")]
    ChainPem(#[source] rustls_pki_types::pem::Error),
    #[error("the key is not PEM")]
    KeyPem(#[source] rustls_pki_types::pem::Error),
    #[error("the certificate cannot be read")]
    Certificate(#[source] Unreadable),
    #[error("the key cannot be used with the certificate")]
    Key(#[source] rustls::Error),
}
