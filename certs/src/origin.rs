//! Servers outside the mesh: the authorities that somebody trusts for them, and the names that they must prove.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, OtherError, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, DnsName, ServerName, UnixTime};
use thiserror::Error;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;

use crate::pem;
use crate::signatures::{algorithms, signatures_by_algorithms};

/// Why a text holds no authorities.
#[derive(Debug, Error)]
pub enum NoAuthorities {
    /// It is no PEM.
    #[error("is not readable PEM: {0}")]
    Pem(rustls_pki_types::pem::Error),
    /// There is none.
    #[error("there is no certificate in it")]
    Empty,
    /// One of them cannot be trusted for anything. Numbered from 1.
    #[error("certificate {number} cannot be used: {why}")]
    Unusable {
        /// Which one.
        number: usize,
        /// What is wrong with it.
        why: rustls::Error,
    },
}

/// The authorities in a PEM text, and nothing else that is in it (RFC 7468 §2 lets anything stand between them). All of
/// them must be usable: with one left out, some servers would be refused and nobody told why.
pub fn authorities(text: &[u8]) -> Result<RootCertStore, NoAuthorities> {
    roots(&certificates(text)?)
}

fn roots(all: &[CertificateDer<'static>]) -> Result<RootCertStore, NoAuthorities> {
    let mut roots = RootCertStore::empty();
    for (index, der) in all.iter().enumerate() {
        let number = index + 1;
        roots
            .add(der.clone())
            .map_err(|why| NoAuthorities::Unusable { number, why })?;
    }
    Ok(roots)
}

/// The same text with the certificates alone, once they are found usable.
pub fn authorities_pem(text: &[u8]) -> Result<String, NoAuthorities> {
    let all = certificates(text)?;
    roots(&all)?;
    Ok(all
        .iter()
        .map(|der| pem::encode("CERTIFICATE", der))
        .collect())
}

fn certificates(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, NoAuthorities> {
    let all = CertificateDer::pem_slice_iter(text).collect::<Result<Vec<_>, _>>();
    match all.map_err(NoAuthorities::Pem)? {
        none if none.is_empty() => Err(NoAuthorities::Empty),
        all => Ok(all),
    }
}

/// A name that a certificate can have (RFC 5280 §4.2.1.6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubjectName {
    /// A host. A certificate may have it by a wildcard.
    Dns(DnsName<'static>),
    /// Compared as text.
    Uri(Box<str>),
}

/// What is no name of a certificate.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("\"{0}\" is neither a DNS name nor a URI")]
pub struct NoName(String);

impl FromStr for SubjectName {
    type Err = NoName;

    fn from_str(text: &str) -> Result<Self, NoName> {
        let is_scheme = |scheme: &str| {
            scheme.starts_with(|first: char| first.is_ascii_alphabetic())
                && scheme
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
        };
        match text.split_once("://") {
            Some((scheme, rest)) if is_scheme(scheme) && !rest.is_empty() && text.is_ascii() => {
                Ok(Self::Uri(text.into()))
            }
            Some(_) => Err(NoName(text.to_owned())),
            None => host(text).map(Self::Dns),
        }
    }
}

/// A host by name; addresses are none.
pub fn host(text: &str) -> Result<DnsName<'static>, NoName> {
    match ServerName::try_from(text.to_owned()) {
        Ok(ServerName::DnsName(name)) => Ok(name),
        _ => Err(NoName(text.to_owned())),
    }
}

impl fmt::Display for SubjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(name) => f.write_str(name.as_ref()),
            Self::Uri(uri) => f.write_str(uri),
        }
    }
}

/// For clients: the server must show a certificate (chain, serverAuth, time) with one of the names. The name asked for in
/// the handshake plays no part.
#[derive(Debug)]
pub struct OriginVerifier {
    roots: RootCertStore,
    names: Vec<SubjectName>,
    algorithms: WebPkiSupportedAlgorithms,
}

/// A certificate without any of the names that were asked for.
#[derive(Debug, Error)]
#[error("the certificate has none of the names {0}")]
struct OtherName(String);

impl OriginVerifier {
    /// Without names nobody is let through.
    pub fn new(roots: RootCertStore, names: Vec<SubjectName>) -> Arc<Self> {
        Arc::new(Self {
            roots,
            names,
            algorithms: algorithms(),
        })
    }

    fn verify_name(
        &self,
        leaf: &CertificateDer<'_>,
        parsed: &ParsedCertificate<'_>,
    ) -> Result<(), rustls::Error> {
        let dns =
            |name: &DnsName<'_>| verify_server_name(parsed, &ServerName::DnsName(name.borrow()));
        // The one name that there is mostly: the library's own words say which others the certificate has.
        if let [SubjectName::Dns(name)] = self.names.as_slice() {
            return dns(name);
        }
        let uris = uris(leaf);
        let has = |name: &SubjectName| match name {
            SubjectName::Dns(name) => dns(name).is_ok(),
            SubjectName::Uri(uri) => uris.iter().any(|other| **other == **uri),
        };
        if self.names.iter().any(has) {
            return Ok(());
        }
        let names: Vec<String> = self.names.iter().map(ToString::to_string).collect();
        let error = OtherError(Arc::new(OtherName(names.join(", "))));
        Err(CertificateError::Other(error).into())
    }
}

/// Why a handshake failed, for people: the library shows what it does not know itself as code does.
pub fn why(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(other))) => {
            format!("invalid peer certificate: {other}")
        }
        error => error.to_string(),
    }
}

/// The URIs that a certificate is for.
fn uris(leaf: &CertificateDer<'_>) -> Vec<String> {
    let Ok((_, certificate)) = X509Certificate::from_der(leaf) else {
        return Vec::new();
    };
    let Ok(Some(names)) = certificate.subject_alternative_name() else {
        return Vec::new();
    };
    let uri = |name: &GeneralName<'_>| match name {
        GeneralName::URI(uri) => Some((*uri).to_owned()),
        _ => None,
    };
    names.value.general_names.iter().filter_map(uri).collect()
}

impl ServerCertVerifier for OriginVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let parsed = ParsedCertificate::try_from(leaf)?;
        verify_server_cert_signed_by_trust_anchor(
            &parsed,
            &self.roots,
            intermediates,
            now,
            self.algorithms.all,
        )?;
        self.verify_name(leaf, &parsed)?;
        Ok(ServerCertVerified::assertion())
    }

    signatures_by_algorithms!();
}

#[cfg(test)]
mod tests;
