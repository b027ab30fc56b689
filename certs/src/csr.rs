//! A key of one's own and the request to certify it (PKCS#10). Every renewal makes a new key.

use rcgen::{CertificateParams, DistinguishedName, KeyPair, SanType};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::identity::SpiffeId;

/// What goes to the authority, and what never leaves the process.
pub struct Request {
    pub csr_der: Vec<u8>,
    pub key: PrivateKeyDer<'static>,
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Request").finish_non_exhaustive()
    }
}

/// A new ECDSA P-256 key and a request with the identity as only name.
pub fn generate(identity: &SpiffeId) -> Result<Request, CsrError> {
    let key = KeyPair::generate().map_err(CsrError::Key)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let uri = identity.as_str().try_into().map_err(CsrError::Encode)?;
    params.subject_alt_names = vec![SanType::URI(uri)];
    let csr = params.serialize_request(&key).map_err(CsrError::Encode)?;
    Ok(Request {
        csr_der: csr.der().to_vec(),
        key: PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
    })
}

/// Why no request could be made.
#[derive(Debug, thiserror::Error)]
pub enum CsrError {
    #[error("cannot make a key")]
    Key(#[source] rcgen::Error),
    #[error("cannot write the signing request")]
    Encode(#[source] rcgen::Error),
}
