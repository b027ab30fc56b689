//! One type on one stream: what was asked for, what the proxy holds, what is on its way.

use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    net::SocketAddr,
    sync::Arc,
};

use meshgate_api::push::{self, DeltaResponse, resource_hash};

use super::{
    stream::{Standing, type_url},
    viewer::{Refused, Viewer},
};
use crate::{
    compile::{Key, ResourceKind},
    table::{Content, Touched},
};

/// Bodies of one response, in bytes: half of what gRPC clients take by default.
const RESPONSE_BYTES_MAX: usize = 2 << 20;
/// Names and addresses that one proxy may ask for; an application talks to far fewer.
pub(super) const SUBSCRIPTIONS_MAX: usize = 16 * 1024;

/// Responses of one type that may wait for their answers: what each said is kept until then. A proxy answers as it reads.
pub(super) const UNANSWERED_MAX: usize = 64;

/// What a stream asked for of one type, and how far it is.
#[derive(Debug, Default)]
pub(super) struct Subscription {
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
    /// Responses that nobody has answered yet.
    outstanding: VecDeque<Sent>,
    /// Generation up to which everything is acknowledged.
    acknowledged: u64,
    /// What was refused, until a later response about it is acknowledged: name, version, reason.
    refused: HashMap<String, (String, String)>,
}

/// A response on its way.
#[derive(Debug)]
struct Sent {
    nonce: u64,
    /// The generation that is complete when it is acknowledged.
    completes: Option<u64>,
    /// What it says, by name: the new version, or that the resource is gone.
    versions: HashMap<String, Option<String>>,
}

impl Subscription {
    pub(super) fn resume(&mut self, held: HashMap<String, String>) {
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

    pub(super) fn subscribe(&mut self, names: &[String], table: &Content) -> Result<(), Refused> {
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
    pub(super) fn unsubscribe(&mut self, names: &[String]) {
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

    pub(super) fn acknowledge(&mut self, nonce: &str, refusals: Vec<push::Refusal>) {
        let Ok(nonce) = nonce.parse::<u64>() else {
            return;
        };
        // Responses are answered in order; an answer stands for those before it too.
        let mut answered = HashMap::new();
        while let Some(sent) = self.outstanding.pop_front_if(|sent| sent.nonce <= nonce) {
            self.acknowledged = sent.completes.unwrap_or(self.acknowledged);
            answered.extend(sent.versions);
        }
        self.refused.retain(|name, _| !answered.contains_key(name));
        for refusal in refusals {
            // By now a newer version may be on its way: the refusal is about the one that was answered.
            if let Some((name, Some(version))) = answered.remove_entry(&refusal.resource) {
                self.refused.insert(name, (version, refusal.reason));
            }
        }
    }

    /// A response is on its way.
    pub(super) fn sent(&mut self, nonce: u64, response: &DeltaResponse) {
        let new = response.resources.iter();
        let new = new.map(|resource| (resource.name.clone(), Some(resource.version.clone())));
        let gone = response.removed.iter().map(|name| (name.clone(), None));
        self.outstanding.push_back(Sent {
            nonce,
            completes: (!response.more).then_some(response.generation),
            versions: gone.chain(new).collect(),
        });
    }

    /// The proxy gets no more before it answers.
    pub(super) fn is_full(&self) -> bool {
        self.outstanding.len() >= UNANSWERED_MAX
    }

    /// How far the proxy is with a resource of this type as of `generation`.
    pub(super) fn standing(
        &self,
        key: &Key,
        generation: u64,
        viewer: &Viewer,
        table: &Content,
    ) -> Standing {
        let held = self.held.get(&key.name);
        if held.is_none() && (!self.asked_for(&key.name) || viewer.wanted(key, table).is_none()) {
            return Standing::NotConcerned;
        }
        if let Some((version, reason)) = self.refused.get(&*key.name)
            && Some(version) == held
        {
            return Standing::Refused(reason.clone());
        }
        match self.enforced_generation() >= generation {
            true => Standing::Enforced,
            false => Standing::Waiting,
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
    pub(super) fn look(&mut self, kind: ResourceKind, table: &Content) {
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
    pub(super) fn upserts(
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
    pub(super) fn removals(
        &mut self,
        kind: ResourceKind,
        table: &Content,
    ) -> Option<DeltaResponse> {
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
