//! Clients from outside the mesh, as their certificates name them.

use std::fmt;

use aws_lc_rs::digest;
use rustls_pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;

use crate::identity::IdentityError;

/// Who a client is, read from its certificate once that is verified. Authorities outside the mesh name their clients as
/// they like, so that all usual names are here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientIdentity {
    subject: Box<str>,
    uris: Box<[Box<str>]>,
    dns_names: Box<[Box<str>]>,
    fingerprint: [u8; 32],
}

impl ClientIdentity {
    /// What a certificate says. Says nothing about trust.
    pub fn of_certificate(der: &CertificateDer<'_>) -> Result<Self, IdentityError> {
        let (_, certificate) =
            X509Certificate::from_der(der).map_err(|_| IdentityError::NotX509)?;
        let names = certificate
            .subject_alternative_name()
            .map_err(|_| IdentityError::NotX509)?;
        let names = names.map_or(&[][..], |names| &names.value.general_names);
        let of_kind =
            |pick: fn(&GeneralName<'_>) -> Option<Box<str>>| names.iter().filter_map(pick);
        let digest = digest::digest(&digest::SHA256, der);
        let mut fingerprint = [0; 32];
        fingerprint.copy_from_slice(digest.as_ref());
        Ok(Self {
            subject: certificate.subject().to_string().into(),
            uris: of_kind(|name| match name {
                GeneralName::URI(uri) => Some((*uri).into()),
                _ => None,
            })
            .collect(),
            dns_names: of_kind(|name| match name {
                GeneralName::DNSName(name) => Some((*name).into()),
                _ => None,
            })
            .collect(),
            fingerprint,
        })
    }

    /// The distinguished name, as text; empty when the certificate has none.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// URIs among the subject's alternative names.
    pub fn uris(&self) -> &[Box<str>] {
        &self.uris
    }

    /// Host names among them.
    pub fn dns_names(&self) -> &[Box<str>] {
        &self.dns_names
    }

    /// SHA-256 of the whole certificate.
    pub fn fingerprint(&self) -> &[u8; 32] {
        &self.fingerprint
    }
}

impl fmt::Display for ClientIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in &self.fingerprint {
            write!(f, "{byte:02x}")?;
        }
        write!(f, " {:?}", self.subject)
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};
    use rustls_pki_types::CertificateDer;

    use super::ClientIdentity;

    fn check(params: CertificateParams, expected: (&str, &[&str], &[&str])) {
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let identity = ClientIdentity::of_certificate(certificate.der()).unwrap();
        let (subject, uris, names) = expected;
        assert_eq!(identity.subject(), subject);
        assert!(
            identity
                .uris()
                .iter()
                .map(|uri| &**uri)
                .eq(uris.iter().copied())
        );
        assert!(
            identity
                .dns_names()
                .iter()
                .map(|name| &**name)
                .eq(names.iter().copied())
        );
        assert_ne!(identity.fingerprint(), &[0; 32]);
    }

    #[test]
    fn all_usual_names_are_read() {
        let mut params = CertificateParams::new(vec!["till.shop.test".to_owned()]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "till 7");
        let uri = "spiffe://shop.test/till".try_into().unwrap();
        params.subject_alt_names.push(SanType::URI(uri));
        check(
            params,
            (
                "CN=till 7",
                &["spiffe://shop.test/till"],
                &["till.shop.test"],
            ),
        );
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        check(params, ("", &[], &[]));
    }

    #[test]
    fn what_is_no_certificate_is_nobody() {
        let der = CertificateDer::from(vec![0x30, 0x03, 0x02, 0x01]);
        assert!(ClientIdentity::of_certificate(&der).is_err());
    }
}
