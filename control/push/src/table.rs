//! All compiled resources, in the version that is to be enforced: what streams read.
//!
//! Writers replace entries under a lock that is held for the change alone; readers hold it while they collect one
//! response. There is no queue a reader could be behind of: a stream remembers the generation it has seen, and the log
//! names each resource once, at its latest change. So a slow reader costs nothing and gets the newest version.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::SocketAddr,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard},
};

use meshgate_api::push::{self, ResourceBody};
use tokio::sync::watch;

use crate::{
    compile::{Body, Key, PodTarget, ResourceKind, Update},
    objects::Name,
};

/// Log entries kept for things that are gone, so that streams need not compare everything.
const GONE_MAX: usize = 4096;

/// The table, shared.
#[derive(Debug)]
pub(crate) struct Table {
    content: RwLock<Content>,
    generation: watch::Sender<u64>,
}

/// One resource, encoded once for all streams.
#[derive(Debug)]
pub(crate) struct Entry {
    /// Hash of the content: equal over restarts of the control plane, so that a proxy that resumes gets only what differs.
    pub(crate) version: String,
    pub(crate) body: prost_types::Any,
    /// Services that an EdgeHost needs.
    services: HashSet<Arc<str>>,
    /// "ADDRESS:PORT" that a Service is found by.
    addresses: Vec<String>,
    /// The identity of a Workload.
    pub(crate) identity: Option<String>,
}

/// Something in the log.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Touched {
    Resource(Key),
    /// "ADDRESS:PORT" means another Service, or none.
    Address(String),
    /// A pod's address means another pod, or none.
    Pod(String),
}

/// What the table holds.
#[derive(Debug)]
pub(crate) struct Content {
    generation: u64,
    entries: HashMap<Key, Arc<Entry>>,
    log: BTreeMap<(u64, u64), Touched>,
    places: HashMap<Touched, (u64, u64)>,
    sequence: u64,
    /// Changes up to this generation may be missing from the log.
    forgotten: u64,
    /// How many hosts of the edge need a Service.
    edge_services: HashMap<Arc<str>, usize>,
    addresses: HashMap<String, Arc<str>>,
    pods: HashMap<Name, PodTarget>,
    pod_addresses: HashMap<String, Name>,
}

impl Table {
    /// An empty table. Generations rise from `start`, which must be higher than any of a former process: the time in ms.
    pub(crate) fn new(start: u64) -> Self {
        Self {
            content: RwLock::new(Content {
                generation: start,
                entries: HashMap::new(),
                log: BTreeMap::new(),
                places: HashMap::new(),
                sequence: 0,
                forgotten: start,
                edge_services: HashMap::new(),
                addresses: HashMap::new(),
                pods: HashMap::new(),
                pod_addresses: HashMap::new(),
            }),
            generation: watch::Sender::new(start),
        }
    }

    /// Reads. Never hold it over an await.
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Content> {
        self.content.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes when the generation rises.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }

    /// Takes over what a compilation came to; returns the generation that contains it and how many resources changed.
    pub(crate) fn publish(&self, update: &Update) -> (u64, usize) {
        // Encoded before the lock is taken.
        let encoded: Vec<_> = update
            .resources
            .iter()
            .map(|(key, body)| (key, body.as_ref().map(|body| Arc::new(Entry::encode(body)))))
            .collect();
        let mut content = self.content.write().unwrap_or_else(PoisonError::into_inner);
        let before = content.sequence;
        let next = content.generation + 1;
        let mut changed = 0;
        for (key, entry) in encoded {
            changed += usize::from(content.put(key, entry, next));
        }
        for (name, pod) in &update.pods {
            content.put_pod(name, pod.as_ref(), next);
        }
        if content.sequence != before {
            content.generation = next;
            content.forget_gone();
        }
        let generation = content.generation;
        drop(content);
        self.generation
            .send_if_modified(|seen| std::mem::replace(seen, generation) != generation);
        (generation, changed)
    }
}

impl Content {
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// The resource, also one of a pod's own address.
    pub(crate) fn find(&self, key: &Key) -> Option<Arc<Entry>> {
        if let Some(entry) = self.entries.get(key) {
            return Some(entry.clone());
        }
        if key.kind != ResourceKind::Service {
            return None;
        }
        let (name, port) = parse_pod_service(&key.name)?;
        let service = self.pods.get(&name)?.service(&name, port);
        Some(Arc::new(Entry::encode(&Body::Service(Box::new(service)))))
    }

    /// Name of the Service resource that "ADDRESS:PORT" stands for.
    pub(crate) fn resolve(&self, address: SocketAddr) -> Option<Arc<str>> {
        if let Some(name) = self.addresses.get(&address.to_string()) {
            return Some(name.clone());
        }
        let pod = self.pod_addresses.get(&address.ip().to_string())?;
        Some(pod_service_name(pod, address.port()).into())
    }

    pub(crate) fn of_kind(&self, kind: ResourceKind) -> impl Iterator<Item = &Arc<str>> {
        self.entries
            .keys()
            .filter(move |key| key.kind == kind)
            .map(|key| &key.name)
    }

    pub(crate) fn count(&self, kind: ResourceKind) -> usize {
        self.of_kind(kind).count()
    }

    /// Whether the edge needs a Service.
    pub(crate) fn edge_needs(&self, service: &str) -> bool {
        self.edge_services.contains_key(service)
    }

    /// What changed after `generation`; `None` when that is so long ago that everything must be compared.
    pub(crate) fn changed_since(&self, generation: u64) -> Option<impl Iterator<Item = &Touched>> {
        if generation < self.forgotten {
            return None;
        }
        Some(
            self.log
                .range((generation + 1, 0)..)
                .map(|(_, touched)| touched),
        )
    }

    fn put(&mut self, key: &Key, entry: Option<Arc<Entry>>, generation: u64) -> bool {
        let before = self.entries.get(key).cloned();
        if before.as_ref().map(|entry| &entry.version) == entry.as_ref().map(|entry| &entry.version)
        {
            return false;
        }
        match &entry {
            Some(entry) => drop(self.entries.insert(key.clone(), entry.clone())),
            None => drop(self.entries.remove(key)),
        }
        self.touch(Touched::Resource(key.clone()), generation);
        let none = HashSet::new();
        let needed = before.as_ref().map_or(&none, |entry| &entry.services);
        let needs = entry.as_ref().map_or(&none, |entry| &entry.services);
        for service in needs.difference(needed) {
            self.need_service(service, true, generation);
        }
        for service in needed.difference(needs) {
            self.need_service(service, false, generation);
        }
        let had = before.iter().flat_map(|entry| &entry.addresses);
        let has = entry.iter().flat_map(|entry| &entry.addresses);
        for address in had {
            // Another Service may have got the address before this one's end was seen.
            if self.addresses.get(address) == Some(&key.name) {
                self.addresses.remove(address);
            }
            self.touch(Touched::Address(address.clone()), generation);
        }
        for address in has {
            self.addresses.insert(address.clone(), key.name.clone());
            self.touch(Touched::Address(address.clone()), generation);
        }
        true
    }

    /// The first that needs a Service brings it into the edge's sight, the last takes it out.
    fn need_service(&mut self, service: &Arc<str>, needed: bool, generation: u64) {
        let count = self.edge_services.entry(service.clone()).or_default();
        let before = *count;
        *count = if needed {
            before + 1
        } else {
            before.saturating_sub(1)
        };
        if *count == 0 {
            self.edge_services.remove(service);
        }
        if before == 0 || (before == 1 && !needed) {
            let key = Key::new(ResourceKind::Service, service.clone());
            self.touch(Touched::Resource(key), generation);
        }
    }

    fn put_pod(&mut self, name: &Name, pod: Option<&PodTarget>, generation: u64) {
        if self.pods.get(name) == pod {
            return;
        }
        let before = match pod {
            Some(pod) => self.pods.insert(name.clone(), pod.clone()),
            None => self.pods.remove(name),
        };
        for address in before.iter().flat_map(|pod| &pod.addresses) {
            // Another pod may have got the address before this one's end was seen.
            if self.pod_addresses.get(address) == Some(name) {
                self.pod_addresses.remove(address);
            }
            self.touch(Touched::Pod(address.clone()), generation);
        }
        for address in pod.iter().flat_map(|pod| &pod.addresses) {
            self.pod_addresses.insert(address.clone(), name.clone());
            self.touch(Touched::Pod(address.clone()), generation);
        }
    }

    fn touch(&mut self, touched: Touched, generation: u64) {
        self.sequence += 1;
        let place = (generation, self.sequence);
        if let Some(before) = self.places.insert(touched.clone(), place) {
            self.log.remove(&before);
        }
        self.log.insert(place, touched);
    }

    fn forget_gone(&mut self) {
        let present = self.entries.len() + self.addresses.len() + self.pod_addresses.len();
        if self.log.len() <= present + GONE_MAX {
            return;
        }
        let (entries, addresses, pods) = (&self.entries, &self.addresses, &self.pod_addresses);
        let there = |touched: &Touched| match touched {
            Touched::Resource(key) => entries.contains_key(key),
            Touched::Address(address) => addresses.contains_key(address),
            Touched::Pod(address) => pods.contains_key(address),
        };
        self.log.retain(|_, touched| there(touched));
        self.places.retain(|touched, _| there(touched));
        self.forgotten = self.generation;
    }
}

impl Entry {
    fn encode(body: &Body) -> Self {
        let (type_url, value) = match body {
            Body::Certificate(body) => encode(body),
            Body::Service(body) => encode(&**body),
            Body::Workload(body) => encode(body),
            Body::EdgeHost(body) => encode(body),
        };
        let services = match body {
            Body::EdgeHost(host) => {
                let services = host.rules.iter().map(|rule| rule.service.as_str());
                services
                    .filter(|service| !service.is_empty())
                    .map(Into::into)
                    .collect()
            }
            _ => HashSet::new(),
        };
        let addresses = match body {
            Body::Service(service) => socket_addresses(service),
            _ => Vec::new(),
        };
        let identity = match body {
            Body::Workload(workload) => Some(workload.identity.clone()),
            _ => None,
        };
        Self {
            version: version(&value),
            body: prost_types::Any { type_url, value },
            services,
            addresses,
            identity,
        }
    }
}

fn encode<M: ResourceBody>(body: &M) -> (String, Vec<u8>) {
    (M::resource_type_url(), body.encode_to_vec())
}

fn socket_addresses(service: &push::Service) -> Vec<String> {
    let Ok(port) = u16::try_from(service.port) else {
        return Vec::new();
    };
    let addresses = service
        .addresses
        .iter()
        .filter_map(|address| address.parse().ok());
    addresses
        .map(|address| SocketAddr::new(address, port).to_string())
        .collect()
}

/// The first 64 bits of SHA-256.
fn version(value: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    Sha256::digest(value)[..8]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// "pod/NAMESPACE/NAME:PORT".
fn pod_service_name(pod: &Name, port: u16) -> String {
    format!("pod/{pod}:{port}")
}

fn parse_pod_service(name: &str) -> Option<(Name, u16)> {
    let (path, port) = name.strip_prefix("pod/")?.rsplit_once(':')?;
    let (namespace, name) = path.split_once('/')?;
    Some((Name::new(namespace, name), port.parse().ok()?))
}
