//! The state of one proxy's stream, without the stream: requests in, responses out. Pure.

use std::collections::HashMap;

use meshgate_api::push::{self, DeltaRequest, DeltaResponse, ResourceBody, node::Role};

use super::{
    subscription::Subscription,
    viewer::{Refused, Viewer},
};
use crate::{
    compile::{Key, ResourceKind},
    table::Content,
};

/// Changed and added: what others refer to comes before what refers to it. Removals follow in the same order.
const ORDER: [ResourceKind; 4] = [
    ResourceKind::Certificate,
    ResourceKind::Service,
    ResourceKind::Workload,
    ResourceKind::EdgeHost,
];

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
    types: HashMap<ResourceKind, Subscription>,
    nonce: u64,
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
        let subscription = self.types.entry(kind).or_default();
        if !request.held_versions.is_empty() {
            subscription.resume(request.held_versions);
        }
        subscription.subscribe(&request.subscribe, table)?;
        subscription.unsubscribe(&request.unsubscribe);
        let answered = !request.response_nonce.is_empty();
        if answered {
            subscription.acknowledge(&request.response_nonce, request.refusals);
        }
        Ok(answered)
    }

    /// The next response, until there is nothing to say, or too much has not been answered.
    pub(crate) fn respond(&mut self, table: &Content) -> Option<DeltaResponse> {
        if self.types.values().any(Subscription::is_full) {
            return None;
        }
        for (kind, subscription) in &mut self.types {
            subscription.look(*kind, table);
        }
        let viewer = &self.viewer;
        let upserts = ORDER.into_iter().map(|kind| (kind, false));
        // A host goes together with what changes in others: only what it no longer needs is removed later.
        let removals = ORDER.into_iter().map(|kind| (kind, true));
        for (kind, removing) in upserts.chain(removals) {
            let Some(subscription) = self.types.get_mut(&kind) else {
                continue;
            };
            let response = match removing {
                false => subscription.upserts(kind, viewer, table),
                true => subscription.removals(kind, table),
            };
            if let Some(mut response) = response {
                self.nonce += 1;
                response.nonce = self.nonce.to_string();
                subscription.sent(self.nonce, &response);
                return Some(response);
            }
        }
        None
    }

    /// How far this replica is with a resource as of `generation`.
    pub(crate) fn standing(&self, key: &Key, generation: u64, table: &Content) -> Standing {
        match self.types.get(&key.kind) {
            None => Standing::NotConcerned,
            Some(subscription) => subscription.standing(key, generation, &self.viewer, table),
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
