//! How long certificates live, for people and for the renewal schedule.

use std::fmt;

use jiff::{SignedDuration, Timestamp};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;

/// The span in which a certificate is valid, both ends included, to the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    pub not_before: Timestamp,
    pub not_after: Timestamp,
}

impl Validity {
    /// What is left at `now`; negative when it has ended.
    pub fn left(&self, now: Timestamp) -> SignedDuration {
        now.duration_until(self.not_after)
    }

    /// Whether `now` lies inside.
    pub fn contains(&self, now: Timestamp) -> bool {
        self.not_before <= now && now <= self.not_after
    }

    /// Whether less than 30 % of the whole life is left: the moment files of the cluster's PKI are made anew.
    pub(crate) fn near_its_end(&self, now: Timestamp) -> bool {
        let life_s = self.not_before.duration_until(self.not_after).as_secs_f64();
        self.left(now).as_secs_f64() < 0.3 * life_s
    }

    /// Reads the validity of a DER certificate.
    pub fn of_certificate(der: &CertificateDer<'_>) -> Result<Self, Unreadable> {
        let (_, certificate) = X509Certificate::from_der(der).map_err(|_| Unreadable::NotX509)?;
        validity(&certificate)
    }
}

/// A certificate's name and span.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expiry {
    /// Subject as text, or the first URI name where the subject is empty (workload certificates).
    pub subject: String,
    pub validity: Validity,
}

/// The certificate cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreadable {
    NotPem,
    Empty,
    NotX509,
    Date,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotPem => "not PEM",
            Self::Empty => "no certificate in it",
            Self::NotX509 => "not an X.509 certificate",
            Self::Date => "a date in it is out of range",
        })
    }
}

impl std::error::Error for Unreadable {}

/// Names and spans of every certificate in `pem`, in order; at least one.
pub fn of_pem(pem: &str) -> Result<Vec<Expiry>, Unreadable> {
    let certificates = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| Unreadable::NotPem)?;
    if certificates.is_empty() {
        return Err(Unreadable::Empty);
    }
    certificates.iter().map(of_der).collect()
}

/// Name and span of one certificate.
pub fn of_der(der: &CertificateDer<'_>) -> Result<Expiry, Unreadable> {
    let (_, certificate) = X509Certificate::from_der(der).map_err(|_| Unreadable::NotX509)?;
    let mut subject = certificate.subject().to_string();
    if subject.is_empty()
        && let Ok(id) = crate::identity::SpiffeId::of_certificate(der)
    {
        subject = id.to_string();
    }
    Ok(Expiry {
        subject,
        validity: validity(&certificate)?,
    })
}

fn validity(certificate: &X509Certificate<'_>) -> Result<Validity, Unreadable> {
    let at = |time: x509_parser::time::ASN1Time| {
        Timestamp::from_second(time.timestamp()).map_err(|_| Unreadable::Date)
    };
    Ok(Validity {
        not_before: at(certificate.validity().not_before)?,
        not_after: at(certificate.validity().not_after)?,
    })
}
