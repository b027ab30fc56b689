//! Certificates of the edge, from the Secrets that Ingresses name.

use std::{collections::BTreeSet, fmt, sync::Arc};

use meshgate_api::push;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use super::{Compiler, index::tls_hosts};
use crate::objects::{Known, Name, Secret};

/// A certificate chain with its key, checked: they parse and belong together.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct KeyPair {
    chain_pem: String,
    key_pem: String,
}

/// Never prints the key.
impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyPair").finish_non_exhaustive()
    }
}

impl Compiler {
    /// None while there is no Secret, or never was a valid one.
    pub(super) fn certificate(&mut self, name: &Name) -> Option<push::Certificate> {
        match self.objects.secrets.get(name)? {
            Known::Missing => drop(self.good_pairs.remove(name)),
            Known::Unreadable(_) => {}
            // Of an invalid one nothing is taken: what was valid before stays.
            Known::Present(secret) => {
                if let Ok(pair) = key_pair(secret) {
                    self.good_pairs.insert(name.clone(), Arc::new(pair));
                }
            }
        }
        let hosts = self.certificate_hosts(name);
        let pair = self.good_pairs.get(name).filter(|_| !hosts.is_empty())?;
        Some(push::Certificate {
            hosts: hosts.iter().map(|host| host.to_string()).collect(),
            chain_pem: pair.chain_pem.clone(),
            key_pem: pair.key_pem.clone(),
            ..push::Certificate::default()
        })
    }

    /// Hosts that a Secret is served for: all that name it, less those that an older Ingress has another Secret for.
    fn certificate_hosts(&self, secret: &Name) -> BTreeSet<Arc<str>> {
        let ingresses = self.index.secrets.at(secret);
        let named = ingresses.flat_map(|ingress| self.tls_claims(ingress));
        named
            .filter(|(of, host)| of == secret && self.tls_secret(host).as_ref() == Some(secret))
            .map(|(_, host)| host)
            .collect()
    }

    /// The Secret in force for a host: the oldest Ingress decides, in it the first entry.
    pub(super) fn tls_secret(&self, host: &Arc<str>) -> Option<Name> {
        let oldest = self.index.tls_hosts.at(host).min_by_key(|name| {
            let created = self
                .objects
                .ingresses
                .get(*name)
                .map(|ingress| ingress.meta.created_unix_s);
            (created, *name)
        })?;
        self.tls_claims(oldest)
            .into_iter()
            .find(|(_, claimed)| claimed == host)
            .map(|(secret, _)| secret)
    }

    /// (Secret, host) for all that an Ingress asks for, in its order.
    pub(super) fn tls_claims(&self, name: &Name) -> Vec<(Name, Arc<str>)> {
        let Some(ingress) = self.objects.ingresses.get(name) else {
            return Vec::new();
        };
        let claims = ingress
            .tls
            .iter()
            .filter_map(|tls| Some((tls, name.sibling(tls.secret.as_ref()?))));
        claims
            .flat_map(|(tls, secret)| {
                tls_hosts(ingress, &tls.hosts)
                    .into_iter()
                    .map(move |host| (secret.clone(), host))
            })
            .collect()
    }
}

/// What is wrong with the two PEM texts of a TLS Secret.
pub fn key_pair_problem(certificate: &[u8], key: &[u8]) -> Option<String> {
    let secret = Secret {
        certificate: certificate.to_vec(),
        key: key.to_vec(),
        authorities: None,
    };
    key_pair(&secret).err()
}

/// Reads the two PEM texts of a TLS Secret.
pub(super) fn key_pair(secret: &Secret) -> Result<KeyPair, String> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&secret.certificate)
        .collect::<Result<_, _>>()
        .map_err(|error| format!("tls.crt: {error}"))?;
    if chain.is_empty() {
        return Err("tls.crt: there is no certificate in it".into());
    }
    let key = PrivateKeyDer::from_pem_slice(&secret.key)
        .map_err(|_| "tls.key: there is no private key in it")?;
    let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key)
        .map_err(|_| "tls.key: the key is of no supported type (RSA, ECDSA, Ed25519)")?;
    let pair = rustls::sign::CertifiedKey::new(chain, key);
    match pair.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => {}
        Err(rustls::Error::InconsistentKeys(_)) => {
            return Err("tls.key does not belong to tls.crt".into());
        }
        Err(error) => return Err(format!("tls.crt: {error}")),
    }
    let text = |bytes: &[u8], field: &str| {
        String::from_utf8(bytes.to_vec()).map_err(|_| format!("{field}: is not text"))
    };
    Ok(KeyPair {
        chain_pem: text(&secret.certificate, "tls.crt")?,
        key_pem: text(&secret.key, "tls.key")?,
    })
}
