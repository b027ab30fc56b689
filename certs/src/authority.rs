//! The mesh's certificate authority: an ECDSA P-256 root that signs what workloads ask for, and refuses everything else.

use std::time::Duration;

use jiff::Timestamp;
use rand::RngCore as _;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber, SubjectPublicKeyInfo,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::cri_attributes::ParsedCriAttribute;
use x509_parser::extensions::ParsedExtension;
use x509_parser::oid_registry as oid;
use x509_parser::prelude::FromDer as _;
use x509_parser::public_key::PublicKey;

use crate::expiry::{Unreadable, Validity};
use crate::identity::{IdentityError, SpiffeId, TrustDomain, only_uri};

/// Life of a workload's certificate where nothing else is asked.
pub const LEAF_TTL: Duration = Duration::from_secs(24 * 60 * 60);
/// Certificates start in the past by this much, for peers whose clocks are behind.
pub const BACKDATED: Duration = Duration::from_secs(5 * 60);
/// Life of a root, and the longest life of anything it signs.
const ROOT_TTL: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);
/// A request with a 4096-bit RSA key and a long name has 2 KiB; anything much larger is no request of a workload.
const CSR_BYTES_MAX: usize = 8 * 1024;
/// Verifying is cubic in the size of an RSA key, and the requester chooses it.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=4096;

/// The root's certificate and key.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    cert_der: CertificateDer<'static>,
    cert_pem: String,
    key_pem: String,
    validity: Validity,
}

/// What a workload gets back: leaf first; the root is not part of it.
#[derive(Debug)]
pub struct IssuedLeaf {
    pub chain_der: Vec<CertificateDer<'static>>,
    pub validity: Validity,
}

impl Authority {
    /// A new self-signed root, valid for ten years.
    pub fn generate(domain: &TrustDomain, now: Timestamp) -> Result<Self, AuthorityError> {
        let key = KeyPair::generate().map_err(AuthorityError::Generate)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::OrganizationName, domain.as_str());
        params
            .distinguished_name
            .push(DnType::CommonName, "Meshgate mesh CA");
        // No intermediates: a stolen workload key must not be able to sign, whatever a verifier overlooks.
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.serial_number = Some(random_serial());
        set_span(&mut params, now, ROOT_TTL);
        let certificate = params.self_signed(&key).map_err(AuthorityError::Generate)?;
        Self::from_pem(&certificate.pem(), &key.serialize_pem())
    }

    /// Takes up a root that was saved as [`Authority::cert_pem`] and [`Authority::key_pem`].
    pub fn from_pem(cert_pem: &str, key_pem: &str) -> Result<Self, AuthorityError> {
        let cert_der = CertificateDer::from_pem_slice(cert_pem.as_bytes())
            .map_err(|_| AuthorityError::Certificate(Unreadable::NotPem))?;
        let validity = Validity::of_certificate(&cert_der).map_err(AuthorityError::Certificate)?;
        let key = KeyPair::from_pem(key_pem).map_err(AuthorityError::Key)?;
        if !certifies(&cert_der, &key) {
            return Err(AuthorityError::OtherKey);
        }
        let issuer =
            Issuer::from_ca_cert_der(&cert_der, key).map_err(AuthorityError::NotAuthority)?;
        if !issuer.key_usages().contains(&KeyUsagePurpose::KeyCertSign) {
            return Err(AuthorityError::CannotSign);
        }
        Ok(Self {
            issuer,
            cert_der,
            cert_pem: cert_pem.to_owned(),
            key_pem: key_pem.to_owned(),
            validity,
        })
    }

    pub fn cert_pem(&self) -> &str {
        &self.cert_pem
    }

    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }

    pub fn cert_der(&self) -> &CertificateDer<'static> {
        &self.cert_der
    }

    pub fn validity(&self) -> Validity {
        self.validity
    }

    /// Signs `csr_der` (PKCS#10) for a workload that has *proven* to be `identity`. Nothing but the public key is taken
    /// from the request; name, usages and life are ours. The life ends with the root's at the latest.
    pub fn sign(
        &self,
        csr_der: &[u8],
        identity: &SpiffeId,
        ttl: Duration,
        now: Timestamp,
    ) -> Result<IssuedLeaf, Refusal> {
        let public_key = examine(csr_der, identity)?;
        if !self.validity.contains(now) {
            return Err(Refusal::AuthorityExpired);
        }
        let left = Duration::try_from(self.validity.left(now)).unwrap_or_default();
        let ttl = ttl.min(left).max(Duration::from_secs(1));
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let uri = identity.as_str().try_into().map_err(Refusal::Sign)?;
        params.subject_alt_names = vec![SanType::URI(uri)];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(random_serial());
        set_span(&mut params, now, ttl);
        let leaf = params
            .signed_by(&public_key, &self.issuer)
            .map_err(Refusal::Sign)?;
        let leaf = leaf.der().clone();
        let validity = Validity::of_certificate(&leaf).map_err(|_| Refusal::Unreadable)?;
        Ok(IssuedLeaf {
            chain_der: vec![leaf],
            validity,
        })
    }
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority")
            .field("validity", &self.validity)
            .finish_non_exhaustive()
    }
}

/// Everything a request must be before its key is signed.
fn examine(csr_der: &[u8], identity: &SpiffeId) -> Result<SubjectPublicKeyInfo, Refusal> {
    if csr_der.len() > CSR_BYTES_MAX {
        return Err(Refusal::TooLarge);
    }
    let (rest, csr) =
        X509CertificationRequest::from_der(csr_der).map_err(|_| Refusal::Unreadable)?;
    if !rest.is_empty() {
        return Err(Refusal::Unreadable);
    }
    let info = &csr.certification_request_info;
    key_is_bounded(&info.subject_pki)?;
    csr.verify_signature()
        .map_err(|_| Refusal::NotSignedByItsKey)?;
    for attribute in info.subject.iter_attributes() {
        let named = *attribute.attr_type() == oid::OID_X509_COMMON_NAME
            && attribute
                .as_str()
                .is_ok_and(|name| name == identity.as_str());
        if !named {
            return Err(Refusal::Subject);
        }
    }
    if requested_identity(&csr)? != *identity {
        return Err(Refusal::OtherIdentity);
    }
    SubjectPublicKeyInfo::from_der(info.subject_pki.raw).map_err(|_| Refusal::KeyType)
}

/// Kinds and sizes of keys that TLS peers take; checked before any cryptography runs on them.
fn key_is_bounded(key: &x509_parser::x509::SubjectPublicKeyInfo<'_>) -> Result<(), Refusal> {
    if key.algorithm.algorithm == oid::OID_SIG_ED25519 {
        return Ok(());
    }
    match key.parsed().map_err(|_| Refusal::KeyType)? {
        PublicKey::RSA(rsa) if RSA_BITS.contains(&rsa.key_size()) => Ok(()),
        PublicKey::RSA(_) => Err(Refusal::KeySize),
        PublicKey::EC(_) => {
            let curve = key.algorithm.parameters.as_ref();
            let curve = curve.and_then(|any| any.as_oid().ok());
            let known = [oid::OID_EC_P256, oid::OID_NIST_EC_P384];
            match curve {
                Some(curve) if known.contains(&curve) => Ok(()),
                _ => Err(Refusal::KeyType),
            }
        }
        _ => Err(Refusal::KeyType),
    }
}

/// The one name asked for. Usages and `CA:FALSE` may be asked for too, they are ours to decide; nothing else may.
fn requested_identity(csr: &X509CertificationRequest<'_>) -> Result<SpiffeId, Refusal> {
    let mut names = None;
    let mut requests = 0;
    for attribute in csr.certification_request_info.iter_attributes() {
        let ParsedCriAttribute::ExtensionRequest(request) = attribute.parsed_attribute() else {
            return Err(Refusal::Attribute);
        };
        requests += 1;
        for extension in &request.extensions {
            match extension.parsed_extension() {
                ParsedExtension::SubjectAlternativeName(san) if names.is_none() => {
                    names = Some(only_uri(&san.general_names).map_err(Refusal::Name)?);
                }
                ParsedExtension::SubjectAlternativeName(_) => {
                    return Err(Refusal::Name(IdentityError::SeveralNames));
                }
                ParsedExtension::BasicConstraints(constraints) if constraints.ca => {
                    return Err(Refusal::WantsToBeAuthority);
                }
                ParsedExtension::BasicConstraints(_)
                | ParsedExtension::KeyUsage(_)
                | ParsedExtension::ExtendedKeyUsage(_) => {}
                _ => return Err(Refusal::Attribute),
            }
        }
    }
    if requests > 1 {
        return Err(Refusal::Attribute);
    }
    names.ok_or(Refusal::Name(IdentityError::NoName))
}

/// 128 random bits, positive: RFC 5280 §4.1.2.2 allows 20 bytes, the CA/Browser Forum wants 64 bits of chance.
pub(crate) fn random_serial() -> SerialNumber {
    let mut bytes = [0; 16];
    rand::rng().fill_bytes(&mut bytes);
    bytes[0] = bytes[0] & 0x7f | 0x40;
    SerialNumber::from_slice(&bytes)
}

/// Valid from a little before `now` to `ttl` after it.
pub(crate) fn set_span(params: &mut CertificateParams, now: Timestamp, ttl: Duration) {
    let now_s = Duration::from_secs(u64::try_from(now.as_second()).unwrap_or(0));
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + now_s.saturating_sub(BACKDATED);
    params.not_after = epoch + now_s.saturating_add(ttl);
}

/// Whether `key` is the private half of the certificate's public key.
pub(crate) fn certifies(certificate: &CertificateDer<'_>, key: &KeyPair) -> bool {
    use rcgen::PublicKeyData as _;
    x509_parser::parse_x509_certificate(certificate)
        .is_ok_and(|(_, parsed)| parsed.public_key().raw == key.subject_public_key_info())
}

/// Why there is no usable root.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    #[error("cannot make a root")]
    Generate(#[source] rcgen::Error),
    #[error("the root's certificate cannot be read")]
    Certificate(#[source] Unreadable),
    #[error("the root's key cannot be read")]
    Key(#[source] rcgen::Error),
    #[error("the root's key belongs to another certificate")]
    OtherKey,
    #[error("the root's certificate cannot be used as an issuer")]
    NotAuthority(#[source] rcgen::Error),
    #[error("the root's certificate may not sign certificates")]
    CannotSign,
}

/// Why a request is not signed.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error("the signing request is larger than {CSR_BYTES_MAX} bytes")]
    TooLarge,
    #[error("the signing request is not PKCS#10")]
    Unreadable,
    #[error("keys are ECDSA P-256 or P-384, Ed25519, or RSA")]
    KeyType,
    #[error("RSA keys have 2048 to 4096 bits")]
    KeySize,
    #[error("the signing request is not signed with its own key")]
    NotSignedByItsKey,
    #[error("the subject must be empty, or the identity as common name")]
    Subject,
    #[error("the signing request must name one identity")]
    Name(#[source] IdentityError),
    #[error("the signing request names another identity than the one proven")]
    OtherIdentity,
    #[error("the signing request asks to be an authority")]
    WantsToBeAuthority,
    #[error("the signing request asks for more than a name and usages")]
    Attribute,
    #[error("the root has expired")]
    AuthorityExpired,
    #[error("cannot sign")]
    Sign(#[source] rcgen::Error),
}

#[cfg(test)]
mod tests;
