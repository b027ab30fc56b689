//! Workload identity: `spiffe://<trust-domain>/ns/<namespace>/sa/<service account>`.
//!
//! Shapes follow the SPIFFE-ID standard (§2) and X509-SVID (§2: exactly one URI SAN), narrowed to what Kubernetes names
//! can be. An identity is parsed once and cannot be wrong afterwards.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;

use rustls_pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;

const SCHEME: &str = "spiffe://";
/// Longest trust domain, as in SPIFFE-ID §2.1.
const TRUST_DOMAIN_BYTES_MAX: usize = 255;
/// Longest namespace or service account; Kubernetes allows 63 and 253.
const SEGMENT_BYTES_MAX: usize = 253;

/// Where identities are comparable: everything one authority (and its successors) signs.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrustDomain(Arc<str>);

impl TrustDomain {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TrustDomain {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let fits =
            |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_');
        if text.is_empty() || text.len() > TRUST_DOMAIN_BYTES_MAX || !text.bytes().all(fits) {
            return Err(InvalidId::TrustDomain);
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The identity of a workload. Cheap to clone; equal when the text is equal.
#[derive(Clone)]
pub struct SpiffeId {
    text: Arc<str>,
    /// Ends of the trust domain and of the namespace in `text`.
    domain_end: usize,
    namespace_end: usize,
}

impl SpiffeId {
    pub fn new(
        domain: &TrustDomain,
        namespace: &str,
        service_account: &str,
    ) -> Result<Self, InvalidId> {
        segment(namespace).ok_or(InvalidId::Namespace)?;
        segment(service_account).ok_or(InvalidId::ServiceAccount)?;
        let domain_end = SCHEME.len() + domain.as_str().len();
        Ok(Self {
            text: format!("{SCHEME}{domain}/ns/{namespace}/sa/{service_account}").into(),
            domain_end,
            namespace_end: domain_end + "/ns/".len() + namespace.len(),
        })
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub fn trust_domain(&self) -> &str {
        &self.text[SCHEME.len()..self.domain_end]
    }

    pub fn namespace(&self) -> &str {
        &self.text[self.domain_end + "/ns/".len()..self.namespace_end]
    }

    pub fn service_account(&self) -> &str {
        &self.text[self.namespace_end + "/sa/".len()..]
    }

    /// The identity that a certificate names: its only subject alternative name, a URI. Says nothing about trust.
    pub fn of_certificate(der: &CertificateDer<'_>) -> Result<Self, IdentityError> {
        let (rest, certificate) =
            X509Certificate::from_der(der).map_err(|_| IdentityError::NotX509)?;
        if !rest.is_empty() {
            return Err(IdentityError::NotX509);
        }
        let names = certificate
            .subject_alternative_name()
            .map_err(|_| IdentityError::NotX509)?
            .ok_or(IdentityError::NoName)?;
        only_uri(&names.value.general_names)
    }

    /// The identity of a connection's peer from what rustls holds after the handshake (which has verified the chain).
    pub fn of_peer(chain: Option<&[CertificateDer<'_>]>) -> Result<Self, IdentityError> {
        let leaf = chain
            .and_then(<[_]>::first)
            .ok_or(IdentityError::NoCertificate)?;
        Self::of_certificate(leaf)
    }
}

/// The one URI in `names`, as an identity.
pub(crate) fn only_uri(names: &[GeneralName<'_>]) -> Result<SpiffeId, IdentityError> {
    match names {
        [GeneralName::URI(uri)] => uri.parse().map_err(IdentityError::Invalid),
        [] => Err(IdentityError::NoName),
        [_] => Err(IdentityError::NotUri),
        _ => Err(IdentityError::SeveralNames),
    }
}

impl FromStr for SpiffeId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let rest = text.strip_prefix(SCHEME).ok_or(InvalidId::Scheme)?;
        let (domain, path) = rest.split_once('/').ok_or(InvalidId::Path)?;
        let path = path.strip_prefix("ns/").ok_or(InvalidId::Path)?;
        let (namespace, path) = path.split_once('/').ok_or(InvalidId::Path)?;
        let service_account = path.strip_prefix("sa/").ok_or(InvalidId::Path)?;
        Self::new(&domain.parse()?, namespace, service_account)
    }
}

/// A path segment that Kubernetes could have as a name and SPIFFE as a segment; never `.` or `..`, never a separator.
fn segment(text: &str) -> Option<&str> {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-');
    let ends = |b: &u8| b.is_ascii_alphanumeric();
    let bytes = text.as_bytes();
    (bytes.len() <= SEGMENT_BYTES_MAX
        && bytes.first().is_some_and(ends)
        && bytes.last().is_some_and(ends)
        && text.bytes().all(fits))
    .then_some(text)
}

impl PartialEq for SpiffeId {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for SpiffeId {}

impl Hash for SpiffeId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

impl PartialOrd for SpiffeId {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for SpiffeId {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.text.cmp(&other.text)
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Which part of an identity is not as it must be. The text itself is not repeated: it may come from an attacker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidId {
    #[error("an identity starts with spiffe://")]
    Scheme,
    #[error("a trust domain is 1 to 255 of a-z, 0-9, '.', '-' and '_'")]
    TrustDomain,
    #[error("the path of an identity is /ns/<namespace>/sa/<service account>")]
    Path,
    #[error("the namespace is not a Kubernetes name")]
    Namespace,
    #[error("the service account is not a Kubernetes name")]
    ServiceAccount,
}

/// Why a certificate has no usable identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    #[error("the peer sent no certificate")]
    NoCertificate,
    #[error("not an X.509 certificate")]
    NotX509,
    #[error("the certificate has no subject alternative name")]
    NoName,
    #[error("the certificate has more than one subject alternative name")]
    SeveralNames,
    #[error("the certificate's subject alternative name is not a URI")]
    NotUri,
    #[error("the certificate's URI is no identity")]
    Invalid(#[source] InvalidId),
    #[error("the certificate belongs to another trust domain")]
    OtherTrustDomain,
    #[error("the certificate belongs to another workload")]
    OtherWorkload,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<(&str, &str, &str), InvalidId>) {
        let parsed = text.parse::<SpiffeId>();
        let parts = parsed
            .as_ref()
            .map(|id| (id.trust_domain(), id.namespace(), id.service_account()))
            .map_err(|error| *error);
        assert_eq!(parts, expected, "{text:?}");
        if let Ok(id) = &parsed {
            assert_eq!(id.to_string(), text);
        }
    }

    #[test]
    fn identities_parse_or_say_which_part_is_wrong() {
        check(
            "spiffe://cluster.local/ns/shop/sa/cart",
            Ok(("cluster.local", "shop", "cart")),
        );
        check("spiffe://a/ns/b/sa/c.d", Ok(("a", "b", "c.d")));
        check(
            "https://cluster.local/ns/shop/sa/cart",
            Err(InvalidId::Scheme),
        );
        check(
            "SPIFFE://cluster.local/ns/shop/sa/cart",
            Err(InvalidId::Scheme),
        );
        check("spiffe:///ns/shop/sa/cart", Err(InvalidId::TrustDomain));
        check(
            "spiffe://Cluster.local/ns/shop/sa/cart",
            Err(InvalidId::TrustDomain),
        );
        check("spiffe://a:80/ns/shop/sa/cart", Err(InvalidId::TrustDomain));
        check("spiffe://a@b/ns/shop/sa/cart", Err(InvalidId::TrustDomain));
        check("spiffe://a", Err(InvalidId::Path));
        check("spiffe://a/sa/c/ns/b", Err(InvalidId::Path));
        check("spiffe://a/ns/b/sa", Err(InvalidId::Path));
        check("spiffe://a/ns//sa/c", Err(InvalidId::Namespace));
        check("spiffe://a/ns/../sa/c", Err(InvalidId::Namespace));
        check("spiffe://a/ns/b%2f/sa/c", Err(InvalidId::Namespace));
        check("spiffe://a/ns/b/sa/", Err(InvalidId::ServiceAccount));
        check("spiffe://a/ns/b/sa/c/d", Err(InvalidId::ServiceAccount));
        check("spiffe://a/ns/b/sa/c\0", Err(InvalidId::ServiceAccount));
        check("spiffe://a/ns/b/sa/c?x", Err(InvalidId::ServiceAccount));
        check(
            "spiffe://a/ns/b/sa/c\u{430}",
            Err(InvalidId::ServiceAccount),
        );
    }

    #[test]
    fn names_are_bounded() {
        let long = "a".repeat(254);
        check(
            &format!("spiffe://a/ns/{long}/sa/c"),
            Err(InvalidId::Namespace),
        );
        check(
            &format!("spiffe://{}/ns/b/sa/c", "a".repeat(256)),
            Err(InvalidId::TrustDomain),
        );
    }
}
