//! Who depends on whom.

use std::{
    collections::{BTreeSet, HashMap},
    hash::Hash,
    sync::Arc,
};

use meshgate_api::policies::{TargetRef, backend::CaKind};

use crate::objects::{Backend, Ingress, Name};

/// A key with the set of what depends on it; no key has an empty set.
#[derive(Debug)]
pub(super) struct MultiMap<K, V>(HashMap<K, BTreeSet<V>>);

impl<K, V> Default for MultiMap<K, V> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Eq + Hash + Clone, V: Ord + Clone> MultiMap<K, V> {
    pub(super) fn insert(&mut self, key: &K, value: &V) {
        self.0.entry(key.clone()).or_default().insert(value.clone());
    }

    pub(super) fn remove(&mut self, key: &K, value: &V) {
        if let Some(values) = self.0.get_mut(key) {
            values.remove(value);
            if values.is_empty() {
                self.0.remove(key);
            }
        }
    }

    pub(super) fn put(&mut self, key: &K, value: &V, present: bool) {
        match present {
            true => self.insert(key, value),
            false => self.remove(key, value),
        }
    }

    pub(super) fn at<'a>(&'a self, key: &K) -> impl Iterator<Item = &'a V> + use<'a, K, V> {
        self.0.get(key).into_iter().flatten()
    }

    pub(super) fn contains_key(&self, key: &K) -> bool {
        self.0.contains_key(key)
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &K> {
        self.0.keys()
    }
}

/// What a policy is attached to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Target {
    pub(super) kind: TargetKind,
    pub(super) name: Name,
}

/// Kinds that policies can be attached to so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum TargetKind {
    Ingress,
    Service,
    Namespace,
}

impl Target {
    /// None for kinds that are not supported yet.
    pub(super) fn of(policy: &Name, target: &TargetRef) -> Option<Self> {
        let kind = match (target.group.as_str(), target.kind.as_str()) {
            ("networking.k8s.io", "Ingress") => TargetKind::Ingress,
            ("", "Service") => TargetKind::Service,
            ("", "Namespace") => TargetKind::Namespace,
            _ => return None,
        };
        Some(Self {
            kind,
            name: policy.sibling(&target.name),
        })
    }
}

/// What authorities are read from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Referent {
    pub(super) kind: CaKind,
    pub(super) name: Name,
}

/// The indexes. Ingresses are in them only while they are ours.
#[derive(Debug, Default)]
pub(super) struct Index {
    pub(super) owned: BTreeSet<Name>,
    /// Host to Ingresses that have rules for it, or send what no rule matches somewhere.
    pub(super) hosts: MultiMap<Arc<str>, Name>,
    /// Service to Ingresses that name it.
    pub(super) backends: MultiMap<Name, Name>,
    /// Secret to Ingresses that name it.
    pub(super) secrets: MultiMap<Name, Name>,
    /// Host to Ingresses that have a certificate for it.
    pub(super) tls_hosts: MultiMap<Arc<str>, Name>,
    /// Service to its slices.
    pub(super) slices: MultiMap<Name, Name>,
    /// Pod to slices that name it.
    pub(super) pod_slices: MultiMap<Name, Name>,
    pub(super) rate_limit_targets: MultiMap<Target, Name>,
    pub(super) backend_targets: MultiMap<Target, Name>,
    pub(super) access_targets: MultiMap<Target, Name>,
    /// What holds authorities to the BackendPolicies that name it.
    pub(super) authorities: MultiMap<Referent, Name>,
}

impl Index {
    /// Whether something refers to a Secret.
    pub(super) fn wants_secret(&self, name: &Name) -> bool {
        self.secrets.contains_key(name) || self.wants_authorities(CaKind::Secret, name)
    }

    /// Whether a BackendPolicy names an object for its authorities.
    pub(super) fn wants_authorities(&self, kind: CaKind, name: &Name) -> bool {
        let name = name.clone();
        self.authorities.contains_key(&Referent { kind, name })
    }

    pub(super) fn put_ingress(&mut self, name: &Name, ingress: &Ingress, present: bool) {
        match present {
            true => drop(self.owned.insert(name.clone())),
            false => drop(self.owned.remove(name)),
        }
        for host in hosts(ingress) {
            self.hosts.put(&host, name, present);
        }
        for service in services(name, ingress) {
            self.backends.put(&service, name, present);
        }
        for tls in &ingress.tls {
            if let Some(secret) = &tls.secret {
                self.secrets.put(&name.sibling(secret), name, present);
            }
            for host in tls_hosts(ingress, &tls.hosts) {
                self.tls_hosts.put(&host, name, present);
            }
        }
    }
}

/// Hosts whose resource an Ingress has a part in.
pub(super) fn hosts(ingress: &Ingress) -> BTreeSet<Arc<str>> {
    let mut hosts: BTreeSet<Arc<str>> =
        ingress.rules.iter().map(|rule| rule.host.clone()).collect();
    if ingress.default_backend.is_some() {
        hosts.insert("*".into());
    }
    hosts
}

/// Services that an Ingress names.
pub(super) fn services(name: &Name, ingress: &Ingress) -> BTreeSet<Name> {
    let paths = ingress.rules.iter().flat_map(|rule| &rule.paths);
    let backends = paths
        .map(|path| &path.backend)
        .chain(&ingress.default_backend);
    backends
        .filter_map(|backend| match backend {
            Backend::Service { name: service, .. } => Some(name.sibling(service)),
            Backend::Resource(_) | Backend::Nothing => None,
        })
        .collect()
}

/// Hosts of a `tls` entry: those it names, else those of the rules.
pub(super) fn tls_hosts(ingress: &Ingress, named: &[Arc<str>]) -> BTreeSet<Arc<str>> {
    if !named.is_empty() {
        return named.iter().cloned().collect();
    }
    let hosts: BTreeSet<Arc<str>> = ingress.rules.iter().map(|rule| rule.host.clone()).collect();
    match hosts.is_empty() {
        true => BTreeSet::from(["*".into()]),
        false => hosts,
    }
}
