//! TLS to endpoints, with the authorities that policies name.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use meshgate_api::{
    policies::backend::{CaKind, CaRef, Tls},
    push,
};

use super::{Compiler, index::Referent};
use crate::objects::{Authorities, BackendPolicy, Known, Name};

/// Of one policy, all together: every proxy that calls the Service keeps them, and a message must hold them. The public
/// web's authorities are half of it.
const AUTHORITIES_BYTES_MAX: usize = 512 << 10;

/// How endpoints of one port outside the mesh are called.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum EndpointTls {
    Verified {
        hostname: String,
        subject_alt_names: Vec<String>,
        authorities: Vec<Arc<str>>,
    },
    /// Not at all, for this reason.
    Closed(String),
}

impl EndpointTls {
    pub(super) fn pushed(&self) -> push::BackendTls {
        match self {
            Self::Verified {
                hostname,
                subject_alt_names,
                authorities,
            } => push::BackendTls {
                hostname: hostname.clone(),
                subject_alt_names: subject_alt_names.clone(),
                ca_pem: authorities.iter().map(|pem| pem.to_string()).collect(),
                problem: String::new(),
            },
            Self::Closed(problem) => push::BackendTls {
                problem: problem.clone(),
                ..push::BackendTls::default()
            },
        }
    }
}

/// Why there is nothing to verify endpoints by; the field comes first.
#[derive(Debug)]
pub(super) enum NoAuthorities {
    /// Not known yet: an object is just being read.
    Unread(String),
    /// What there is will not do.
    Unusable(String),
}

impl NoAuthorities {
    fn of(self, index: usize) -> Self {
        let at = format!("spec.tls.caRefs[{index}]");
        match self {
            Self::Unread(why) => Self::Unread(format!("{at}: {why}")),
            Self::Unusable(why) => Self::Unusable(format!("{at}: {why}")),
        }
    }
}

impl Compiler {
    /// What policies ask of the endpoints of a Service, by port. Where that cannot be enforced, nothing may be sent at all.
    ///
    /// A policy that names another object has not taken away any trust before that is known: what was pushed stays until
    /// the object has been read.
    pub(super) fn tls_by_port(&self, name: &Name) -> BTreeMap<u16, EndpointTls> {
        let service = self.objects.services.get(name);
        let ports = service.into_iter().flat_map(|service| &service.ports);
        let asked = ports.filter_map(|port| {
            let (policy, spec) = self.backend_policy(name, &port.name)?;
            Some((port.port, policy, spec.tls.as_deref()?))
        });
        asked
            .map(|(port, policy, tls)| {
                let before = self.tls_by_port.get(name).and_then(|of| of.get(&port));
                (port, self.endpoint_tls(policy, tls, before))
            })
            .collect()
    }

    fn endpoint_tls(&self, name: &Name, tls: &Tls, before: Option<&EndpointTls>) -> EndpointTls {
        let closed = |why: &str| EndpointTls::Closed(format!("BackendPolicy {name}: {why}"));
        let policy = self.objects.backend_policies.get(name);
        // A policy that wants TLS and is broken elsewhere does not come to that.
        if let Some(problem) = policy.and_then(BackendPolicy::standing_in) {
            return closed(problem);
        }
        let verified = before.filter(|tls| matches!(tls, EndpointTls::Verified { .. }));
        match (self.tls_authorities(name, tls), verified) {
            (Ok(authorities), _) => EndpointTls::Verified {
                hostname: tls.hostname.clone(),
                subject_alt_names: tls.subject_alt_names.clone(),
                authorities,
            },
            (Err(NoAuthorities::Unread(_)), Some(before)) => before.clone(),
            (Err(NoAuthorities::Unread(why) | NoAuthorities::Unusable(why)), _) => closed(&why),
        }
    }

    /// The authorities that a policy has endpoints verified by.
    pub(super) fn tls_authorities(
        &self,
        policy: &Name,
        tls: &Tls,
    ) -> Result<Vec<Arc<str>>, NoAuthorities> {
        if !tls.is_supported() {
            let why = "spec.tls: a certificate of the proxy's is not supported yet";
            return Err(NoAuthorities::Unusable(why.into()));
        }
        let refs = tls.ca_refs.iter().enumerate();
        let all = refs.map(|(index, ca)| {
            let found = self.authorities(policy, ca);
            found.map_err(|why| why.of(index))
        });
        let all: Vec<Arc<str>> = all.collect::<Result<_, _>>()?;
        match all.iter().map(|pem| pem.len()).sum::<usize>() {
            0..=AUTHORITIES_BYTES_MAX => Ok(all),
            more => Err(NoAuthorities::Unusable(format!(
                "spec.tls.caRefs: {more} bytes are more than {AUTHORITIES_BYTES_MAX}"
            ))),
        }
    }

    fn authorities(&self, policy: &Name, ca: &CaRef) -> Result<Arc<str>, NoAuthorities> {
        let name = policy.sibling(&ca.name);
        match ca.kind {
            CaKind::ConfigMap => {
                let map = self.objects.config_maps.get(&name);
                held(&format!("ConfigMap {name}"), map, |map| &map.authorities)
            }
            CaKind::Secret => {
                let secret = self.objects.secrets.get(&name);
                held(&format!("Secret {name}"), secret, |secret| {
                    &secret.authorities
                })
            }
        }
    }
}

/// What an object has under `ca.crt`.
fn held<T>(
    object: &str,
    known: Option<&Known<T>>,
    authorities: fn(&T) -> &Option<Authorities>,
) -> Result<Arc<str>, NoAuthorities> {
    let why = match known {
        None => {
            let why = format!("{object} has not been read yet");
            return Err(NoAuthorities::Unread(why));
        }
        Some(Known::Missing) => format!("{object} does not exist"),
        Some(Known::Unreadable(why)) => format!("{object} cannot be read: {why}"),
        Some(Known::Present(present)) => match authorities(present) {
            Some(Ok(pem)) => return Ok(pem.clone()),
            Some(Err(problem)) => format!("{object}: ca.crt: {problem}"),
            None => format!("{object} has no key ca.crt"),
        },
    };
    Err(NoAuthorities::Unusable(why))
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
