//! Objects in, resources and reports out: pure, and incremental.
//!
//! A change marks the units that depend on it (by [`Index`]); each marked unit is compiled anew from the objects. So the
//! cost of a change does not depend on how much else there is, and the result equals a compilation from scratch; but for what
//! stays in force from before and only memory has: the last valid version of a policy and of a certificate, and TLS to
//! endpoints while the authorities that a policy names are being read.

mod access;
mod attach;
mod backend;
mod certificate;
mod host;
mod index;
mod limits;
mod report;
mod service;
#[cfg(test)]
mod tests;
mod tls;
mod touch;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use meshgate_api::{policies::backend::CaKind, push};

pub use certificate::key_pair_problem;
pub(crate) use report::{
    Ancestor, IngressReport, PolicyReport, Problem, Report, Subject, SubjectKind,
};
#[cfg(test)]
pub(crate) use report::{Effect, Unsupported};
pub(crate) use service::resource_name;

use crate::objects::{Change, EndpointSlice, Name, Objects};
use certificate::KeyPair;
use index::Index;
use tls::EndpointTls;

/// The types that are pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum ResourceKind {
    Certificate,
    Service,
    Workload,
    EdgeHost,
}

/// Names a resource.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    pub(crate) kind: ResourceKind,
    pub(crate) name: Arc<str>,
}

impl Key {
    pub(crate) fn new(kind: ResourceKind, name: impl Into<Arc<str>>) -> Self {
        Self {
            kind,
            name: name.into(),
        }
    }
}

/// A resource of any type.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Body {
    Certificate(push::Certificate),
    Service(Box<push::Service>),
    Workload(push::Workload),
    EdgeHost(push::EdgeHost),
}

/// A meshed pod that can be called by its own address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PodTarget {
    pub(crate) addresses: Vec<String>,
    pub(crate) uid: String,
    pub(crate) node: String,
    pub(crate) identity: String,
    pub(crate) skip_inbound: crate::objects::PortSet,
    pub(crate) opaque: crate::objects::PortSet,
}

/// What a batch of changes came to. `None` = gone.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Update {
    pub(crate) resources: BTreeMap<Key, Option<Body>>,
    pub(crate) pods: BTreeMap<Name, Option<PodTarget>>,
    pub(crate) reports: BTreeMap<Subject, Option<Report>>,
    /// Secrets that are referred to from now on (true) or no longer (false).
    pub(crate) secrets: BTreeMap<Name, bool>,
    /// The same of ConfigMaps.
    pub(crate) config_maps: BTreeMap<Name, bool>,
}

/// Something that is compiled as a whole. The order is the order of compilation: reports read what hosts came to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Unit {
    Service(Name),
    Pod(Name),
    Secret(Name),
    ConfigMap(Name),
    Host(Arc<str>),
    Report(Subject),
}

/// The compiler with everything it remembers.
#[derive(Debug)]
pub(crate) struct Compiler {
    trust_domain: String,
    /// Connected replicas of the edge, for the local share of global limits.
    edge_replicas: u32,
    objects: Objects,
    index: Index,
    dirty: BTreeSet<Unit>,
    /// Names of the resources of each Service, to tell which are gone.
    service_ports: HashMap<Name, BTreeSet<Arc<str>>>,
    /// As pushed last, for each Service and its ports with TLS.
    tls_by_port: HashMap<Name, BTreeMap<u16, EndpointTls>>,
    /// Who lost which path of a host to an older Ingress.
    host_conflicts: HashMap<Arc<str>, BTreeMap<Name, Vec<String>>>,
    /// The last valid content of each Secret in use.
    good_pairs: BTreeMap<Name, Arc<KeyPair>>,
    reports: HashMap<Subject, Report>,
    secrets_wanted: BTreeSet<Name>,
    config_maps_wanted: BTreeSet<Name>,
}

impl Compiler {
    pub(crate) fn new(trust_domain: &str) -> Self {
        Self {
            trust_domain: trust_domain.to_owned(),
            edge_replicas: 1,
            objects: Objects::default(),
            index: Index::default(),
            dirty: BTreeSet::new(),
            service_ports: HashMap::new(),
            tls_by_port: HashMap::new(),
            host_conflicts: HashMap::new(),
            good_pairs: BTreeMap::new(),
            reports: HashMap::new(),
            secrets_wanted: BTreeSet::new(),
            config_maps_wanted: BTreeSet::new(),
        }
    }

    /// Takes over changes and marks what depends on them.
    pub(crate) fn absorb(&mut self, changes: impl IntoIterator<Item = Change>) {
        for change in changes {
            self.take(change);
        }
    }

    /// How many replicas share a global limit from now on.
    pub(crate) fn set_edge_replicas(&mut self, replicas: u32) -> Update {
        let replicas = replicas.max(1);
        if replicas != self.edge_replicas {
            self.edge_replicas = replicas;
            self.touch_limited_hosts();
        }
        self.compile()
    }

    /// Whether every Secret and ConfigMap that something refers to has been read.
    pub(crate) fn referents_known(&self) -> bool {
        let (mut secrets, mut maps) = (self.secrets_wanted.iter(), self.config_maps_wanted.iter());
        secrets.all(|name| self.objects.secrets.contains_key(name))
            && maps.all(|name| self.objects.config_maps.contains_key(name))
    }

    pub(crate) fn objects(&self) -> &Objects {
        &self.objects
    }

    /// Whether an Ingress is served.
    pub(crate) fn is_owned(&self, ingress: &Name) -> bool {
        self.index.owned.contains(ingress)
    }

    /// Whether an Ingress that is served names this Service.
    pub(crate) fn is_backend(&self, service: &Name) -> bool {
        self.index.backends.contains_key(service)
    }

    pub(crate) fn slices_of(&self, service: &Name) -> impl Iterator<Item = &EndpointSlice> {
        let slices = self.index.slices.at(service);
        slices.filter_map(|slice| self.objects.slices.get(slice))
    }

    /// Compiles what is marked.
    pub(crate) fn compile(&mut self) -> Update {
        let mut update = Update::default();
        // Hosts may mark reports, which come later in the order: so one by one from the front.
        while let Some(unit) = self.dirty.pop_first() {
            match unit {
                Unit::Service(name) => self.compile_service(&name, &mut update),
                Unit::Pod(name) => self.compile_pod(&name, &mut update),
                Unit::Secret(name) => self.compile_secret(&name, &mut update),
                Unit::ConfigMap(name) => self.compile_config_map(name, &mut update),
                Unit::Host(host) => self.compile_host(&host, &mut update),
                Unit::Report(subject) => self.compile_report(subject, &mut update),
            }
        }
        update
    }

    fn compile_service(&mut self, name: &Name, update: &mut Update) {
        let tls = self.tls_by_port(name);
        match tls.is_empty() {
            true => drop(self.tls_by_port.remove(name)),
            false => drop(self.tls_by_port.insert(name.clone(), tls)),
        }
        let mut names = BTreeSet::new();
        for service in self.services(name) {
            let resource: Arc<str> = resource_name(name, service.port).into();
            names.insert(resource.clone());
            let key = Key::new(ResourceKind::Service, resource);
            update
                .resources
                .insert(key, Some(Body::Service(Box::new(service))));
        }
        let before = self.service_ports.remove(name).unwrap_or_default();
        for gone in before.difference(&names) {
            update
                .resources
                .insert(Key::new(ResourceKind::Service, gone.clone()), None);
        }
        if !names.is_empty() {
            self.service_ports.insert(name.clone(), names);
        }
    }

    fn compile_pod(&mut self, name: &Name, update: &mut Update) {
        let workload = self.workload(name).map(Body::Workload);
        let key = Key::new(ResourceKind::Workload, name.to_string());
        update.resources.insert(key, workload);
        update.pods.insert(name.clone(), self.pod_target(name));
    }

    fn compile_secret(&mut self, name: &Name, update: &mut Update) {
        let wanted = self.index.wants_secret(name);
        if wanted != self.secrets_wanted.contains(name) {
            update.secrets.insert(name.clone(), wanted);
            match wanted {
                true => drop(self.secrets_wanted.insert(name.clone())),
                false => {
                    self.secrets_wanted.remove(name);
                    self.objects.secrets.remove(name);
                    self.good_pairs.remove(name);
                }
            }
        }
        let certificate = self.certificate(name).map(Body::Certificate);
        let key = Key::new(ResourceKind::Certificate, name.to_string());
        update.resources.insert(key, certificate);
    }

    fn compile_config_map(&mut self, name: Name, update: &mut Update) {
        let wanted = self.index.wants_authorities(CaKind::ConfigMap, &name);
        if wanted == self.config_maps_wanted.contains(&name) {
            return;
        }
        match wanted {
            true => drop(self.config_maps_wanted.insert(name.clone())),
            false => {
                self.config_maps_wanted.remove(&name);
                self.objects.config_maps.remove(&name);
            }
        }
        update.config_maps.insert(name, wanted);
    }

    fn compile_host(&mut self, host: &Arc<str>, update: &mut Update) {
        let (compiled, conflicts) = self.edge_host(host);
        let key = Key::new(ResourceKind::EdgeHost, host.clone());
        update.resources.insert(key, compiled.map(Body::EdgeHost));
        let before = self.host_conflicts.remove(host).unwrap_or_default();
        let losers = before.keys().chain(conflicts.keys());
        for loser in losers.filter(|loser| before.get(*loser) != conflicts.get(*loser)) {
            self.dirty.insert(Unit::Report(Subject::ingress(loser)));
        }
        if !conflicts.is_empty() {
            self.host_conflicts.insert(host.clone(), conflicts);
        }
    }

    fn compile_report(&mut self, subject: Subject, update: &mut Update) {
        let report = self.report(&subject);
        if self.reports.get(&subject) == report.as_ref() {
            return;
        }
        match &report {
            Some(report) => drop(self.reports.insert(subject.clone(), report.clone())),
            None => drop(self.reports.remove(&subject)),
        }
        update.reports.insert(subject, report);
    }
}
