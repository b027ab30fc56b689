//! TLS to endpoints, with the authorities that policies name.

use std::{collections::BTreeSet, sync::Arc};

use meshgate_api::{
    policies::backend::{CaKind, CaRef, Tls},
    push,
};

use super::{Compiler, index::Referent};
use crate::objects::{Authorities, Known, Name};

/// Of one policy, all together: every proxy that calls the Service keeps them, and a message must hold them. The public
/// web's authorities are half of it.
const AUTHORITIES_BYTES_MAX: usize = 512 << 10;

impl Compiler {
    /// What a policy asks of endpoints. Where that cannot be enforced, nothing may be sent at all.
    pub(super) fn backend_tls(&self, policy: &Name, tls: &Tls) -> Option<push::BackendTls> {
        Some(match self.tls_authorities(policy, tls) {
            Ok(ca_pem) => push::BackendTls {
                hostname: tls.hostname.clone(),
                subject_alt_names: tls.subject_alt_names.clone(),
                ca_pem: ca_pem.iter().map(|pem| pem.to_string()).collect(),
                problem: String::new(),
            },
            Err(problem) => push::BackendTls {
                problem: format!("BackendPolicy {policy}: {problem}"),
                ..push::BackendTls::default()
            },
        })
    }

    /// The authorities that endpoints are verified by, or why there are none; the field comes first.
    pub(super) fn tls_authorities(
        &self,
        policy: &Name,
        tls: &Tls,
    ) -> Result<Vec<Arc<str>>, String> {
        if !tls.is_supported() {
            return Err("spec.tls: a certificate of the proxy's is not supported yet".into());
        }
        let refs = tls.ca_refs.iter().enumerate();
        let all = refs.map(|(index, ca)| {
            let found = self.authorities(policy, ca);
            found.map_err(|problem| format!("spec.tls.caRefs[{index}]: {problem}"))
        });
        let all: Vec<Arc<str>> = all.collect::<Result<_, _>>()?;
        match all.iter().map(|pem| pem.len()).sum::<usize>() {
            0..=AUTHORITIES_BYTES_MAX => Ok(all),
            more => Err(format!(
                "spec.tls.caRefs: {more} bytes are more than {AUTHORITIES_BYTES_MAX}"
            )),
        }
    }

    /// Whether the objects with a policy's authorities have been read.
    pub(super) fn are_read(&self, policy: &Name, tls: &Tls) -> bool {
        referents(policy, Some(tls)).iter().all(|of| match of.kind {
            CaKind::ConfigMap => self.objects.config_maps.contains_key(&of.name),
            CaKind::Secret => self.objects.secrets.contains_key(&of.name),
        })
    }

    fn authorities(&self, policy: &Name, ca: &CaRef) -> Result<Arc<str>, String> {
        let name = policy.sibling(&ca.name);
        let (kind, found) = match ca.kind {
            CaKind::ConfigMap => {
                let map = self.objects.config_maps.get(&name);
                ("ConfigMap", held(map, |map| &map.authorities))
            }
            CaKind::Secret => {
                let secret = self.objects.secrets.get(&name);
                ("Secret", held(secret, |secret| &secret.authorities))
            }
        };
        let pem = found.map_err(|problem| format!("{kind} {name} {problem}"))?;
        pem.clone()
            .map_err(|problem| format!("{kind} {name}: ca.crt: {problem}"))
    }
}

/// What an object has under `ca.crt`, or what is the matter with the object.
fn held<T>(
    known: Option<&Known<T>>,
    authorities: fn(&T) -> &Option<Authorities>,
) -> Result<&Authorities, String> {
    match known {
        None => Err("has not been read yet".into()),
        Some(Known::Missing) => Err("does not exist".into()),
        Some(Known::Unreadable(why)) => Err(format!("cannot be read: {why}")),
        Some(Known::Present(object)) => match authorities(object) {
            None => Err("has no key ca.crt".into()),
            Some(pem) => Ok(pem),
        },
    }
}

/// The objects that a policy's authorities are in.
pub(super) fn referents(policy: &Name, tls: Option<&Tls>) -> BTreeSet<Referent> {
    let refs = tls.iter().flat_map(|tls| &tls.ca_refs);
    refs.map(|ca| Referent {
        kind: ca.kind,
        name: policy.sibling(&ca.name),
    })
    .collect()
}
