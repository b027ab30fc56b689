//! Who a stream belongs to, and what it may see.

use std::sync::Arc;

use meshgate_api::{
    names,
    push::{self, node::Role},
};
use meshgate_certs::identity::SpiffeId;

use super::subscription::SUBSCRIPTIONS_MAX;
use crate::{
    compile::{Key, ResourceKind},
    table::{Content, Entry},
};

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

    pub(super) fn sees_type(&self, kind: ResourceKind) -> bool {
        match (self.role, kind) {
            (_, ResourceKind::Service) => true,
            (Role::Edge, kind) => kind != ResourceKind::Workload,
            (_, kind) => kind == ResourceKind::Workload,
        }
    }

    /// The version of a resource that this viewer should hold, given that it asked for it.
    pub(super) fn wanted(&self, key: &Key, table: &Content) -> Option<Arc<Entry>> {
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
