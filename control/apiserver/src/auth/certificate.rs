//! A verified client certificate as a user: common name is the name, organizations are the groups.

use jiff::Timestamp;
use rustls_pki_types::CertificateDer;
use sha2::{Digest as _, Sha256};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;

use super::User;

/// The chain was verified in the handshake; a connection may outlive its certificate, so time is checked again here.
pub(super) fn user(leaf: &CertificateDer<'_>, now: Timestamp) -> Result<User, &'static str> {
    let (_, certificate) =
        X509Certificate::from_der(leaf).map_err(|_| "the client certificate cannot be read")?;
    let validity = certificate.validity();
    let now = now.as_second();
    if now < validity.not_before.timestamp() || validity.not_after.timestamp() < now {
        return Err("the client certificate has expired or is not yet valid");
    }
    let mut names = certificate.subject().iter_common_name();
    let name = names.next().and_then(|name| name.as_str().ok());
    let name = name.filter(|name| !name.is_empty());
    let (Some(name), None) = (name, names.next()) else {
        return Err("the client certificate must have one common name");
    };
    let groups = certificate.subject().iter_organization();
    let groups = groups.filter_map(|group| group.as_str().ok().map(str::to_owned));
    let credential = format!("X509SHA256={:x}", Sha256::digest(leaf));
    let user = User {
        name: name.to_owned(),
        groups: groups.collect(),
        extra: [(
            "authentication.kubernetes.io/credential-id".to_owned(),
            vec![credential],
        )]
        .into(),
        ..User::default()
    };
    Ok(user.authenticated())
}
