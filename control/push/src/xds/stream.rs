//! The state of one proxy's stream, without the stream: requests in, responses out. Pure.

use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    net::SocketAddr,
    sync::Arc,
};

use meshgate_api::{
    names,
    push::{self, DeltaRequest, DeltaResponse, ResourceBody, node::Role, resource_hash},
};
use meshgate_certs::identity::SpiffeId;

use crate::{
    compile::{Key, ResourceKind},
    table::{Content, Touched},
};

/// Bodies of one response, in bytes: half of what gRPC clients take by default.
const RESPONSE_BYTES_MAX: usize = 2 << 20;
/// Names and addresses that one proxy may ask for; an application talks to far fewer.
const SUBSCRIPTIONS_MAX: usize = 16 * 1024;
/// Changed and added: what others refer to comes before what refers to it. Removals follow in the same order.
const ORDER: [ResourceKind; 4] = [
    ResourceKind::Certificate,
    ResourceKind::Service,
    ResourceKind::Workload,
    ResourceKind::EdgeHost,
];

/// Who is at the other end, proven by its certificate.
#[derive(Debug, Clone)]
pub(crate) struct Viewer {
    pub(crate) role: Role,
    pub(crate) identity: SpiffeId,
    pub(crate) pod: String,
}

/// Why a request ends the stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error("the first request names no node with a role")]
    NoNode,
    #[error("{identity} may not act as the edge: only {SYSTEM}/{EDGE} may", SYSTEM = names::SYSTEM_NAMESPACE, EDGE = names::EDGE)]
    NotTheEdge { identity: String },
    #[error("{identity} is not of namespace {namespace}")]
    OtherNamespace { identity: String, namespace: String },
    #[error("unknown type {type_url}")]
    UnknownType { type_url: String },
    #[error("this role may not see {type_url}")]
    NotVisible { type_url: String },
    #[error("a sidecar asks for what it needs by name, not for everything")]
    Wildcard,
    #[error("more than {SUBSCRIPTIONS_MAX} subscriptions")]
    TooMany,
}

impl Viewer {
    /// Checks what a node says of itself against its certificate.
    pub(crate) fn new(node: Option<&push::Node>, identity: &SpiffeId) -> Result<Self, Refused> {
        let node = node.ok_or(Refused::NoNode)?;
        let role = node.role();
        match role {
            Role::Unspecified => return Err(Refused::NoNode),
            Role::Edge
                if (identity.namespace(), identity.service_account())
                    != (names::SYSTEM_NAMESPACE, names::EDGE) =>
            {
                return Err(Refused::NotTheEdge {
                    identity: identity.to_string(),
                });
            }
            Role::Sidecar if identity.namespace() != node.namespace => {
                return Err(Refused::OtherNamespace {
                    identity: identity.to_string(),
                    namespace: node.namespace.clone(),
                });
            }
            Role::Edge | Role::Sidecar => {}
        }
        Ok(Self {
            role,
            identity: identity.clone(),
            pod: format!("{}/{}", node.namespace, node.pod),
        })
    }

    fn sees_type(&self, kind: ResourceKind) -> bool {
        match (self.role, kind) {
            (_, ResourceKind::Service) => true,
            (Role::Edge, kind) => kind != ResourceKind::Workload,
            (_, kind) => kind == ResourceKind::Workload,
        }
    }

    /// The version of a resource that this viewer should hold, given that it asked for it.
    fn wanted(&self, key: &Key, table: &Content) -> Option<Arc<crate::table::Entry>> {
        match (self.role, key.kind) {
            (Role::Edge, ResourceKind::Service) if !table.edge_needs(&key.name) => None,
            (Role::Sidecar, ResourceKind::Workload) => {
                let entry = table.find(key).filter(|_| *key.name == *self.pod)?;
                (entry.identity.as_deref() == Some(self.identity.as_str())).then_some(entry)
            }
            _ => table.find(key),
        }
    }
}

/// How far a replica is with something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It does not need it.
    NotConcerned,
    Enforced,
    Waiting,
    /// It refused it, and keeps what it had.
    Refused(String),
}

/// Everything about one stream.
#[derive(Debug)]
pub(crate) struct StreamState {
    pub(crate) viewer: Viewer,
    types: HashMap<ResourceKind, TypeState>,
    nonce: u64,
}

#[derive(Debug, Default)]
struct TypeState {
    wildcard: bool,
    names: HashSet<Arc<str>>,
    /// Subscriptions by "ADDRESS:PORT", with what they stand for.
    addresses: HashMap<SocketAddr, Option<Arc<str>>>,
    /// What the proxy has, by name, after all that was sent.
    held: HashMap<Arc<str>, String>,
    held_hash: u64,
    /// Generation up to which changes were looked at.
    seen: u64,
    /// Names to look at again.
    dirty: BTreeSet<Arc<str>>,
    /// Everything is to be looked at.
    compare_all: bool,
    /// Subscriptions that wait for their first answer, as the proxy wrote them.
    unanswered: BTreeSet<String>,
    /// A subscription is answered even when there is nothing to say.
    must_answer: bool,
    /// Nonces on their way, with the generation that is complete when they are acknowledged.
    outstanding: VecDeque<(u64, Option<u64>)>,
    /// Generation up to which everything is acknowledged.
    acknowledged: u64,
    /// What was refused: name, version, reason.
    refused: HashMap<Arc<str>, (String, String)>,
}

impl StreamState {
    pub(crate) fn new(viewer: Viewer) -> Self {
        Self {
            viewer,
            types: HashMap::new(),
            nonce: 0,
        }
    }

    /// Takes a request; true when it acknowledged or refused something.
    pub(crate) fn request(
        &mut self,
        request: DeltaRequest,
        table: &Content,
    ) -> Result<bool, Refused> {
        let unknown = || Refused::UnknownType {
            type_url: request.type_url.clone(),
        };
        let kind = kind_of(&request.type_url).ok_or_else(unknown)?;
        if !self.viewer.sees_type(kind) {
            return Err(Refused::NotVisible {
                type_url: request.type_url,
            });
        }
        if self.viewer.role == Role::Sidecar && request.subscribe.iter().any(|name| name == "*") {
            return Err(Refused::Wildcard);
        }
        let state = self.types.entry(kind).or_default();
        if !request.held_versions.is_empty() {
            state.resume(request.held_versions);
        }
        state.subscribe(&request.subscribe, table)?;
        state.unsubscribe(&request.unsubscribe);
        let answered = !request.response_nonce.is_empty();
        if answered {
            state.acknowledge(&request.response_nonce, request.refusals);
        }
        Ok(answered)
    }

    /// The next response, until there is nothing to say.
    pub(crate) fn respond(&mut self, table: &Content) -> Option<DeltaResponse> {
        for (kind, state) in &mut self.types {
            state.look(*kind, table);
        }
        let viewer = &self.viewer;
        let upserts = ORDER.into_iter().map(|kind| (kind, false));
        // A host goes together with what changes in others: only what it no longer needs is removed later.
        let removals = ORDER.into_iter().map(|kind| (kind, true));
        for (kind, removing) in upserts.chain(removals) {
            let Some(state) = self.types.get_mut(&kind) else {
                continue;
            };
            let response = match removing {
                false => state.upserts(kind, viewer, table),
                true => state.removals(kind, table),
            };
            if let Some(mut response) = response {
                self.nonce += 1;
                response.nonce = self.nonce.to_string();
                let completes = (!response.more).then_some(response.generation);
                state.outstanding.push_back((self.nonce, completes));
                return Some(response);
            }
        }
        None
    }

    /// How far this replica is with a resource as of `generation`.
    pub(crate) fn standing(&self, key: &Key, generation: u64, table: &Content) -> Standing {
        let Some(state) = self.types.get(&key.kind) else {
            return Standing::NotConcerned;
        };
        let held = state.held.get(&key.name);
        if held.is_none()
            && (!state.asked_for(&key.name) || self.viewer.wanted(key, table).is_none())
        {
            return Standing::NotConcerned;
        }
        if let Some((version, reason)) = state.refused.get(&key.name)
            && Some(version) == held
        {
            return Standing::Refused(reason.clone());
        }
        match state.enforced_generation() >= generation {
            true => Standing::Enforced,
            false => Standing::Waiting,
        }
    }
}

impl TypeState {
    fn resume(&mut self, held: HashMap<String, String>) {
        self.held = held
            .into_iter()
            .map(|(name, version)| (name.into(), version))
            .collect();
        self.held_hash = push::held_hash(
            self.held
                .iter()
                .map(|(name, version)| (&**name, version.as_str())),
        );
        self.compare_all = true;
    }

    fn subscribe(&mut self, names: &[String], table: &Content) -> Result<(), Refused> {
        for name in names {
            self.must_answer = true;
            if name == "*" {
                if std::mem::replace(&mut self.wildcard, true) && !self.compare_all {
                    // Asked again: the proxy wants everything anew.
                    self.held.clear();
                    self.held_hash = 0;
                }
                self.compare_all = true;
                continue;
            }
            let (resolved, again) = match name.parse::<SocketAddr>() {
                Ok(address) => {
                    let resolved = table.resolve(address);
                    (
                        resolved.clone(),
                        self.addresses.insert(address, resolved).is_some(),
                    )
                }
                Err(_) => {
                    let name: Arc<str> = name.as_str().into();
                    (Some(name.clone()), !self.names.insert(name))
                }
            };
            if let Some(resolved) = resolved {
                if again {
                    self.drop_held(&resolved);
                }
                self.dirty.insert(resolved);
            }
            self.unanswered.insert(name.clone());
        }
        match self.names.len() + self.addresses.len() > SUBSCRIPTIONS_MAX {
            true => Err(Refused::TooMany),
            false => Ok(()),
        }
    }

    /// What nothing else asks for is taken away by a response, so that both sides always agree on what is held.
    fn unsubscribe(&mut self, names: &[String]) {
        for name in names {
            self.unanswered.remove(name);
            let dropped = match name.parse::<SocketAddr>() {
                _ if name == "*" => {
                    self.wildcard = false;
                    self.dirty.extend(self.held.keys().cloned());
                    continue;
                }
                Ok(address) => self.addresses.remove(&address).flatten(),
                Err(_) => self.names.take(name.as_str()),
            };
            self.dirty.extend(dropped);
        }
    }

    fn acknowledge(&mut self, nonce: &str, refusals: Vec<push::Refusal>) {
        let Ok(nonce) = nonce.parse::<u64>() else {
            return;
        };
        // Responses are answered in order; an answer stands for those before it too.
        while let Some((_, completes)) = self
            .outstanding
            .front()
            .copied()
            .filter(|(sent, _)| *sent <= nonce)
        {
            self.acknowledged = completes.unwrap_or(self.acknowledged);
            self.outstanding.pop_front();
        }
        self.refused
            .retain(|name, (version, _)| self.held.get(name) == Some(version));
        for refusal in refusals {
            if let Some((name, version)) = self.held.get_key_value(refusal.resource.as_str()) {
                self.refused
                    .insert(name.clone(), (version.clone(), refusal.reason));
            }
        }
    }

    fn asked_for(&self, name: &Arc<str>) -> bool {
        self.wildcard
            || self.names.contains(name)
            || self
                .addresses
                .values()
                .flatten()
                .any(|resolved| resolved == name)
    }

    /// Generation that is enforced as far as this type goes.
    fn enforced_generation(&self) -> u64 {
        let settled = self.outstanding.is_empty() && self.dirty.is_empty() && !self.compare_all;
        if settled {
            self.seen
        } else {
            self.acknowledged
        }
    }

    /// Marks what changed since the last look.
    fn look(&mut self, kind: ResourceKind, table: &Content) {
        if self.seen == table.generation() && !self.compare_all {
            return;
        }
        let changed = table.changed_since(self.seen).filter(|_| !self.compare_all);
        match changed {
            Some(changed) => {
                for touched in changed {
                    self.mark(kind, touched, table);
                }
            }
            None => {
                let all: Vec<SocketAddr> = self.addresses.keys().copied().collect();
                all.into_iter()
                    .for_each(|address| self.resolve_again(address, table));
                self.dirty.extend(self.held.keys().cloned());
                self.dirty.extend(self.names.iter().cloned());
                if self.wildcard {
                    self.dirty.extend(table.of_kind(kind).cloned());
                }
            }
        }
        self.compare_all = false;
        self.seen = table.generation();
    }

    fn mark(&mut self, kind: ResourceKind, touched: &Touched, table: &Content) {
        match touched {
            Touched::Resource(key) => {
                if key.kind == kind
                    && (self.held.contains_key(&key.name) || self.asked_for(&key.name))
                {
                    self.dirty.insert(key.name.clone());
                }
            }
            Touched::Address(address) => {
                if let Ok(address) = address.parse()
                    && self.addresses.contains_key(&address)
                {
                    self.resolve_again(address, table);
                }
            }
            Touched::Pod(ip) => {
                let of_pod = self
                    .addresses
                    .keys()
                    .filter(|address| address.ip().to_string() == *ip);
                let of_pod: Vec<SocketAddr> = of_pod.copied().collect();
                of_pod
                    .into_iter()
                    .for_each(|address| self.resolve_again(address, table));
            }
        }
    }

    fn resolve_again(&mut self, address: SocketAddr, table: &Content) {
        let resolved = table.resolve(address);
        let before = self.addresses.insert(address, resolved.clone()).flatten();
        self.dirty.extend(before.into_iter().chain(resolved));
    }

    /// Changed and added resources, and the first answers to subscriptions.
    fn upserts(
        &mut self,
        kind: ResourceKind,
        viewer: &Viewer,
        table: &Content,
    ) -> Option<DeltaResponse> {
        let mut resources = Vec::new();
        let mut bytes = 0;
        let mut more = false;
        for name in self.dirty.clone() {
            let key = Key::new(kind, name.clone());
            let wanted = viewer.wanted(&key, table).filter(|_| self.asked_for(&name));
            match (wanted, self.held.get(&name)) {
                (Some(entry), Some(held)) if *held == entry.version => {
                    self.dirty.remove(&name);
                }
                (Some(entry), _) => {
                    if bytes >= RESPONSE_BYTES_MAX {
                        more = true;
                        break;
                    }
                    bytes += entry.body.value.len();
                    self.dirty.remove(&name);
                    self.hold(&name, &entry.version);
                    resources.push(push::Resource {
                        name: name.to_string(),
                        version: entry.version.clone(),
                        body: Some(entry.body.clone()),
                    });
                }
                // Removed later, once nothing that goes with this generation needs it.
                (None, Some(_)) => {}
                (None, None) => {
                    self.dirty.remove(&name);
                }
            }
        }
        if resources.is_empty() && !self.must_answer {
            return None;
        }
        let mut removed = Vec::new();
        if !more {
            self.must_answer = false;
            removed = std::mem::take(&mut self.unanswered)
                .into_iter()
                .filter(|name| !self.found(name))
                .collect();
        }
        Some(self.response(kind, resources, removed, more, table))
    }

    /// Whether a subscription has led to a resource that the proxy holds.
    fn found(&self, subscription: &str) -> bool {
        match subscription.parse::<SocketAddr>() {
            Ok(address) => {
                let resolved = self.addresses.get(&address).and_then(Option::as_ref);
                resolved.is_some_and(|name| self.held.contains_key(name))
            }
            Err(_) => self.held.contains_key(subscription),
        }
    }

    /// What is left to look at after [`Self::upserts`] is held and no longer wanted.
    fn removals(&mut self, kind: ResourceKind, table: &Content) -> Option<DeltaResponse> {
        let gone = std::mem::take(&mut self.dirty);
        if gone.is_empty() {
            return None;
        }
        for name in &gone {
            self.drop_held(name);
        }
        let removed = gone.iter().map(|name| name.to_string()).collect();
        Some(self.response(kind, Vec::new(), removed, false, table))
    }

    fn response(
        &self,
        kind: ResourceKind,
        resources: Vec<push::Resource>,
        removed: Vec<String>,
        more: bool,
        table: &Content,
    ) -> DeltaResponse {
        DeltaResponse {
            type_url: type_url(kind),
            resources,
            removed,
            nonce: String::new(),
            generation: table.generation(),
            held_hash: self.held_hash,
            more,
        }
    }

    fn hold(&mut self, name: &Arc<str>, version: &str) {
        self.drop_held(name);
        self.held.insert(name.clone(), version.to_owned());
        self.held_hash = self.held_hash.wrapping_add(resource_hash(name, version));
    }

    fn drop_held(&mut self, name: &Arc<str>) {
        if let Some(version) = self.held.remove(name) {
            self.held_hash = self.held_hash.wrapping_sub(resource_hash(name, &version));
        }
    }
}

pub(crate) fn type_url(kind: ResourceKind) -> String {
    match kind {
        ResourceKind::Certificate => push::Certificate::resource_type_url(),
        ResourceKind::Service => push::Service::resource_type_url(),
        ResourceKind::Workload => push::Workload::resource_type_url(),
        ResourceKind::EdgeHost => push::EdgeHost::resource_type_url(),
    }
}

fn kind_of(url: &str) -> Option<ResourceKind> {
    ORDER.into_iter().find(|kind| type_url(*kind) == url)
}
