//! What the server derives from stored objects and needs at every request: who may do what, which kinds exist,
//! which addresses are taken, which webhooks are called.
//!
//! It follows the store inside each commit, so an acknowledged write counts for the very next request.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use meshgate_schema::{Kind, Registry};
use meshgate_store::{Event, Store};
use serde_json::Value;

use crate::admission::webhook::Webhook;
use crate::auth::{self, Auth};
use crate::objects::{KeyParts, ROOT, decode};
use crate::services::Addresses;
use crate::write::metadata::is_terminating;

/// Everything that follows the store.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) auth: Auth,
    pub(crate) addresses: Addresses,
    registry: ArcSwap<Registry>,
    webhooks: ArcSwap<Vec<Arc<Webhook>>>,
    builtin: Registry,
    definitions: Mutex<Definitions>,
}

/// Stored objects that others are built from, by name.
#[derive(Debug, Default)]
struct Definitions {
    custom: BTreeMap<String, Value>,
    custom_changed: bool,
    webhooks: BTreeMap<String, Vec<Arc<Webhook>>>,
}

/// Whether a change of definitions counts at once: while everything is loaded, once at the end is enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rebuild {
    Now,
    Later,
}

impl Live {
    pub(crate) fn new(auth: Auth, addresses: Addresses) -> Live {
        let builtin = Registry::builtin();
        Live {
            auth,
            addresses,
            registry: ArcSwap::from_pointee(builtin.clone()),
            webhooks: ArcSwap::default(),
            builtin,
            definitions: Mutex::default(),
        }
    }

    /// Takes in all that is stored, then follows. Call once, before the store is written.
    pub(crate) fn follow(self: &Arc<Live>, store: &Store) -> bool {
        let live = Arc::clone(self);
        let first = store.observe(move |event| live.event(event));
        for entry in store.range(ROOT).entries {
            match decode(&entry) {
                Ok(object) => self.apply(&entry.key, Some(&object), Rebuild::Later),
                Err(failure) => {
                    tracing::error!(key = %entry.key, %failure, "a stored object is left out")
                }
            }
        }
        self.rebuild();
        first
    }

    /// The kinds that are served now.
    pub(crate) fn registry(&self) -> Arc<Registry> {
        self.registry.load_full()
    }

    /// Mutating webhooks, in the order in which they are called.
    pub(crate) fn webhooks(&self) -> Arc<Vec<Arc<Webhook>>> {
        self.webhooks.load_full()
    }

    fn event(&self, event: &Event) {
        let key = event.key();
        let Some(parts) = KeyParts::parse(key) else {
            return;
        };
        if !matters(&parts) {
            return;
        }
        match event.current.as_deref().map(decode).transpose() {
            Ok(object) => self.apply(key, object.as_ref(), Rebuild::Now),
            Err(failure) => tracing::error!(%key, %failure, "a written object is not understood"),
        }
    }

    fn apply(&self, key: &str, object: Option<&Value>, rebuild: Rebuild) {
        let Some(parts) = KeyParts::parse(key) else {
            return;
        };
        let KeyParts {
            group,
            resource,
            namespace,
            name,
        } = parts;
        self.auth.update(group, resource, namespace, name, object);
        match (group, resource) {
            SERVICES => return self.addresses.follow(key, object),
            DEFINITIONS => self.define(name, object),
            WEBHOOKS => self.hook(name, object),
            _ => return,
        }
        if rebuild == Rebuild::Now {
            self.rebuild();
        }
    }

    fn define(&self, name: &str, definition: Option<&Value>) {
        let mut definitions = self.definitions();
        match definition {
            Some(definition) => definitions
                .custom
                .insert(name.to_owned(), definition.clone()),
            None => definitions.custom.remove(name),
        };
        definitions.custom_changed = true;
    }

    fn hook(&self, name: &str, configuration: Option<&Value>) {
        let mut definitions = self.definitions();
        match configuration {
            Some(configuration) => definitions
                .webhooks
                .insert(name.to_owned(), Webhook::of(configuration)),
            None => definitions.webhooks.remove(name),
        };
    }

    /// Makes what is served from what is defined.
    fn rebuild(&self) {
        let mut definitions = self.definitions();
        if std::mem::take(&mut definitions.custom_changed) {
            let custom: Vec<Value> = definitions.custom.values().cloned().collect();
            self.registry
                .store(Arc::new(self.builtin.with_custom(&custom)));
        }
        // Kubernetes calls configurations in the order of their names.
        let all = definitions.webhooks.values().flatten().cloned().collect();
        self.webhooks.store(Arc::new(all));
    }

    fn definitions(&self) -> MutexGuard<'_, Definitions> {
        self.definitions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a custom kind is on its way out: its objects are being removed, and none may be added.
    pub(crate) fn is_going(&self, kind: &Kind) -> bool {
        let name = format!("{}.{}", kind.plural(), kind.group());
        let definitions = self.definitions();
        definitions.custom.get(&name).is_some_and(is_terminating)
    }

    /// The stored CustomResourceDefinitions.
    pub(crate) fn custom_definitions(&self) -> Vec<Value> {
        self.definitions().custom.values().cloned().collect()
    }
}

const SERVICES: (&str, &str) = ("", "services");
const DEFINITIONS: (&str, &str) = ("apiextensions.k8s.io", "customresourcedefinitions");
const WEBHOOKS: (&str, &str) = (
    "admissionregistration.k8s.io",
    "mutatingwebhookconfigurations",
);

fn matters(parts: &KeyParts<'_>) -> bool {
    [SERVICES, DEFINITIONS, WEBHOOKS].contains(&(parts.group, parts.resource))
        || auth::needs(parts.group, parts.resource)
}
