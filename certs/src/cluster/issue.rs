//! Makes and renews the files' certificates with the cluster CA.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;

use super::KeyFiles;
use super::files::{self, ClusterPkiError, Files, Keep};
use crate::authority::{certifies, random_serial, set_span};
use crate::expiry::Validity;

const CA_TTL: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);
const LEAF_TTL: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// What a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Profile {
    Server,
    Client,
}

/// A certificate as it should be.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) common_name: String,
    pub(super) organization: Option<String>,
    pub(super) names: Vec<String>,
    pub(super) addresses: Vec<IpAddr>,
    pub(super) profile: Profile,
}

/// A certificate and its key as PEM.
pub(super) struct Issued {
    pub(super) cert_pem: String,
    pub(super) key_pem: String,
}

/// The cluster CA, ready to sign.
pub(super) struct ClusterAuthority {
    issuer: Issuer<'static, KeyPair>,
    cert_der: CertificateDer<'static>,
    cert_pem: String,
}

/// Opens the cluster CA, or makes it where neither file exists. A key without a certificate (a crash in between) is used.
pub(super) fn authority(
    files: &Files,
    now: Timestamp,
) -> Result<ClusterAuthority, ClusterPkiError> {
    let paths = files.pair("ca");
    let cert_pem = files::read_if_there(&paths.cert)?;
    let key_pem = files::read_if_there(&paths.key)?;
    let (cert_pem, key) = match (cert_pem, key_pem) {
        (Some(cert_pem), Some(key_pem)) => (cert_pem, authority_key(&paths.key, &key_pem)?),
        (Some(_), None) => return Err(ClusterPkiError::authority(&paths.key, "not there")),
        (None, key_pem) => {
            let key = match key_pem {
                Some(key_pem) => authority_key(&paths.key, &key_pem)?,
                None => {
                    let key = generate("the cluster CA")?;
                    files::write(&paths.key, &key.serialize_pem(), Keep::ForGood)?;
                    key
                }
            };
            let cert_pem = self_signed(&key, now)?;
            files::write(&paths.cert, &cert_pem, Keep::Renewable)?;
            (cert_pem, key)
        }
    };
    let cert_der = CertificateDer::from_pem_slice(cert_pem.as_bytes())
        .map_err(|_| ClusterPkiError::authority(&paths.cert, "not PEM"))?;
    let validity = Validity::of_certificate(&cert_der)
        .map_err(|why| ClusterPkiError::authority(&paths.cert, why))?;
    if now > validity.not_after {
        return Err(ClusterPkiError::authority(&paths.cert, "expired"));
    }
    if !certifies(&cert_der, &key) {
        let why = "it does not belong to the certificate beside it";
        return Err(ClusterPkiError::authority(&paths.key, why));
    }
    let issuer = Issuer::from_ca_cert_der(&cert_der, key)
        .map_err(|why| ClusterPkiError::authority(&paths.cert, why))?;
    Ok(ClusterAuthority {
        issuer,
        cert_der,
        cert_pem,
    })
}

/// Makes the key that signs service-account tokens where it does not exist.
pub(super) fn service_account_key(files: &Files) -> Result<(), ClusterPkiError> {
    let path = files.pair("sa").key;
    match files::read_if_there(&path)? {
        Some(pem) => KeyPair::from_pem(&pem)
            .map(|_| ())
            .map_err(|why| ClusterPkiError::damaged(&path, why)),
        None => {
            let key = generate("service accounts")?;
            files::write(&path, &key.serialize_pem(), Keep::Renewable)
        }
    }
}

impl ClusterAuthority {
    pub(super) fn ca_pem(&self) -> &str {
        &self.cert_pem
    }

    /// What is in the files if it is as wanted and lives long enough; else made anew, key included. A file that cannot be
    /// read as what it should be is an error, not a reason to overwrite it: it may be somebody's mistake.
    pub(super) fn ensure(
        &self,
        paths: &KeyFiles,
        wanted: &Wanted,
        now: Timestamp,
    ) -> Result<Issued, ClusterPkiError> {
        let cert_pem = files::read_if_there(&paths.cert)?;
        let key_pem = files::read_if_there(&paths.key)?;
        if let (Some(cert_pem), Some(key_pem)) = (cert_pem, key_pem) {
            let certificate = CertificateDer::from_pem_slice(cert_pem.as_bytes())
                .map_err(|_| ClusterPkiError::damaged(&paths.cert, "not PEM"))?;
            let validity = Validity::of_certificate(&certificate)
                .map_err(|why| ClusterPkiError::damaged(&paths.cert, why))?;
            let key = KeyPair::from_pem(&key_pem)
                .map_err(|why| ClusterPkiError::damaged(&paths.key, why))?;
            let good = validity.contains(now)
                && !validity.near_its_end(now)
                && certifies(&certificate, &key)
                && self.signed(&certificate)
                && wanted.is_met_by(&certificate);
            if good {
                return Ok(Issued { cert_pem, key_pem });
            }
        }
        let issued = self.issue(wanted, now)?;
        files::write(&paths.key, &issued.key_pem, Keep::Renewable)?;
        files::write(&paths.cert, &issued.cert_pem, Keep::Renewable)?;
        Ok(issued)
    }

    fn issue(&self, wanted: &Wanted, now: Timestamp) -> Result<Issued, ClusterPkiError> {
        let failed = |source| ClusterPkiError::Issue {
            name: wanted.common_name.clone(),
            source,
        };
        let key = generate(&wanted.common_name)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        if let Some(organization) = &wanted.organization {
            let subject = &mut params.distinguished_name;
            subject.push(DnType::OrganizationName, organization.as_str());
        }
        let subject = &mut params.distinguished_name;
        subject.push(DnType::CommonName, wanted.common_name.as_str());
        for name in &wanted.names {
            let name = name.as_str().try_into().map_err(failed)?;
            params.subject_alt_names.push(SanType::DnsName(name));
        }
        let addresses = wanted.addresses.iter().copied().map(SanType::IpAddress);
        params.subject_alt_names.extend(addresses);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![match wanted.profile {
            Profile::Server => ExtendedKeyUsagePurpose::ServerAuth,
            Profile::Client => ExtendedKeyUsagePurpose::ClientAuth,
        }];
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(random_serial());
        set_span(&mut params, now, LEAF_TTL);
        let certificate = params.signed_by(&key, &self.issuer).map_err(failed)?;
        Ok(Issued {
            cert_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
        })
    }

    fn signed(&self, certificate: &CertificateDer<'_>) -> bool {
        let (Ok((_, leaf)), Ok((_, ca))) = (
            X509Certificate::from_der(certificate),
            X509Certificate::from_der(&self.cert_der),
        ) else {
            return false;
        };
        leaf.verify_signature(Some(ca.public_key())).is_ok()
    }
}

impl Wanted {
    /// Same subject, same names: a node that got another address needs another certificate.
    fn is_met_by(&self, certificate: &CertificateDer<'_>) -> bool {
        let Ok((_, certificate)) = X509Certificate::from_der(certificate) else {
            return false;
        };
        let subject = certificate.subject();
        let common_name = subject.iter_common_name().next();
        let organization = subject.iter_organization().next();
        let same_subject = common_name.and_then(|name| name.as_str().ok())
            == Some(&self.common_name)
            && organization.and_then(|name| name.as_str().ok()) == self.organization.as_deref();
        same_subject && self.names_are(&certificate)
    }

    fn names_are(&self, certificate: &X509Certificate<'_>) -> bool {
        let Ok(found) = certificate.subject_alternative_name() else {
            return false;
        };
        let found = found.map_or(&[][..], |extension| &extension.value.general_names);
        let has = |wanted: &GeneralName<'_>| found.contains(wanted);
        let addresses = self.addresses.iter().all(|address| match address {
            IpAddr::V4(v4) => has(&GeneralName::IPAddress(&v4.octets())),
            IpAddr::V6(v6) => has(&GeneralName::IPAddress(&v6.octets())),
        });
        let names = self
            .names
            .iter()
            .all(|name| has(&GeneralName::DNSName(name)));
        addresses && names && found.len() == self.names.len() + self.addresses.len()
    }
}

fn authority_key(path: &Path, pem: &str) -> Result<KeyPair, ClusterPkiError> {
    KeyPair::from_pem(pem).map_err(|why| ClusterPkiError::authority(path, why))
}

fn generate(name: &str) -> Result<KeyPair, ClusterPkiError> {
    KeyPair::generate().map_err(|source| ClusterPkiError::Issue {
        name: name.to_owned(),
        source,
    })
}

fn self_signed(key: &KeyPair, now: Timestamp) -> Result<String, ClusterPkiError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let subject = &mut params.distinguished_name;
    subject.push(DnType::CommonName, "Meshgate cluster CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    params.serial_number = Some(random_serial());
    set_span(&mut params, now, CA_TTL);
    let certificate = params
        .self_signed(key)
        .map_err(|source| ClusterPkiError::Issue {
            name: "the cluster CA".to_owned(),
            source,
        })?;
    Ok(certificate.pem())
}
