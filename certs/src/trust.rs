//! The roots that peers are verified against, swappable while connections come and go.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use crate::pem;

/// One immutable set of roots; several while a root is being replaced.
pub struct TrustBundle {
    certificates: Vec<CertificateDer<'static>>,
    pub(crate) roots: Arc<RootCertStore>,
    /// Checks chain, clientAuth and expiry; built once a bundle, since every handshake needs it.
    pub(crate) client: Arc<dyn ClientCertVerifier>,
}

impl TrustBundle {
    pub fn from_pem(text: &str) -> Result<Self, TrustError> {
        let certificates = CertificateDer::pem_slice_iter(text.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(TrustError::Pem)?;
        Self::from_der(certificates)
    }

    pub fn from_der(
        certificates: impl IntoIterator<Item = CertificateDer<'static>>,
    ) -> Result<Self, TrustError> {
        let certificates: Vec<_> = certificates.into_iter().collect();
        let mut roots = RootCertStore::empty();
        for (index, certificate) in certificates.iter().enumerate() {
            roots
                .add(certificate.clone())
                .map_err(|source| TrustError::Root { index, source })?;
        }
        if roots.is_empty() {
            return Err(TrustError::Empty);
        }
        let roots = Arc::new(roots);
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let client = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider)
            .build()
            .map_err(|_| TrustError::Empty)?;
        Ok(Self {
            certificates,
            roots,
            client,
        })
    }

    pub fn roots_der(&self) -> &[CertificateDer<'static>] {
        &self.certificates
    }

    pub fn pem(&self) -> String {
        self.certificates
            .iter()
            .map(|der| pem::encode("CERTIFICATE", der))
            .collect()
    }
}

impl PartialEq for TrustBundle {
    fn eq(&self, other: &Self) -> bool {
        self.certificates == other.certificates
    }
}

impl fmt::Debug for TrustBundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrustBundle")
            .field("roots", &self.certificates.len())
            .finish_non_exhaustive()
    }
}

/// The bundle in force: every verifier that holds a clone sees a replacement with its next handshake.
#[derive(Clone, Debug)]
pub struct Trust(Arc<ArcSwap<TrustBundle>>);

impl Trust {
    pub fn new(bundle: TrustBundle) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(bundle)))
    }

    pub fn replace(&self, bundle: TrustBundle) {
        self.0.store(Arc::new(bundle));
    }

    pub fn current(&self) -> Arc<TrustBundle> {
        self.0.load_full()
    }
}

/// Why a set of roots cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    #[error("the trust bundle is not PEM")]
    Pem(#[source] rustls_pki_types::pem::Error),
    #[error("the trust bundle has no certificate")]
    Empty,
    #[error("certificate {index} of the trust bundle cannot be a root")]
    Root {
        index: usize,
        #[source]
        source: rustls::Error,
    },
}
