//! Every object of every kind, by its metadata alone: who owns whom, and what a namespace still holds. Kinds come and
//! go with CustomResourceDefinitions.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::core::{DynamicObject, PartialObjectMeta};
use kube::discovery::{ApiCapabilities, ApiResource, Discovery, Scope, verbs};
use kube::runtime::watcher::Config;
use kube::{Api, Client};
use meshgate_api::client::{Cache, Change, Next, Queue};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

use crate::garbage::graph::{Graph, Object};

/// A kind that exists on the server.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Kind {
    pub(crate) resource: ApiResource,
    pub(crate) namespaced: bool,
    /// Whether all of a namespace can be deleted with one request.
    pub(crate) has_collection: bool,
    /// Whether its objects are watched; some kinds can only be listed.
    watched: bool,
}

type Listener = Box<dyn Fn(&Arc<Object>, Seen) + Send + Sync>;

/// What the inventory saw of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seen {
    Present,
    Gone,
}

/// Every object of every kind.
pub(crate) struct Inventory {
    client: Client,
    graph: Mutex<Graph>,
    kinds: RwLock<Vec<Kind>>,
    listeners: RwLock<Vec<Listener>>,
    definitions: Cache<PartialObjectMeta<CustomResourceDefinition>>,
    /// One key: look at what the server serves.
    discovery: Queue<()>,
    /// Set once every kind of the first discovery has been listed.
    synced: watch::Sender<bool>,
}

/// One kind's watch.
struct Watch {
    resource: ApiResource,
    objects: Cache<PartialObjectMeta<DynamicObject>>,
    task: AbortHandle,
}

impl Inventory {
    pub(crate) fn new(client: Client) -> Arc<Self> {
        let definitions = Cache::default();
        let discovery = Queue::default();
        let keys = discovery.clone();
        // Also of the status: a kind is served once its definition is established.
        definitions
            .on_change(move |_: &Change<PartialObjectMeta<CustomResourceDefinition>>| keys.add(()));
        discovery.add(());
        Arc::new(Self {
            client,
            graph: Mutex::default(),
            kinds: RwLock::default(),
            listeners: RwLock::default(),
            definitions,
            discovery,
            synced: watch::Sender::new(false),
        })
    }

    /// Calls `listener` after each change, from the watching task.
    pub(crate) fn on_change(&self, listener: impl Fn(&Arc<Object>, Seen) + Send + Sync + 'static) {
        self.listeners
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Box::new(listener));
    }

    /// Everything known. Never held across an await.
    pub(crate) fn graph(&self) -> MutexGuard<'_, Graph> {
        self.graph.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All kinds that the server serves now.
    pub(crate) fn kinds(&self) -> Vec<Kind> {
        self.kinds
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The kind that an owner reference names.
    pub(crate) fn kind(&self, api_version: &str, kind: &str) -> Option<Kind> {
        let group = api_version.rsplit_once('/').map_or("", |(group, _)| group);
        // The version in a reference may no longer be the one that is preferred: group and kind decide.
        self.kinds()
            .into_iter()
            .find(|known| known.resource.group == group && known.resource.kind == kind)
    }

    /// Returns once every kind has been listed.
    pub(crate) async fn synced(&self) {
        let mut synced = self.synced.subscribe();
        // An error means that the sender is gone; `self` holds it.
        let _ = synced.wait_for(|synced| *synced).await;
    }

    /// Follows discovery and watches every kind, forever.
    pub(crate) async fn run(self: &Arc<Self>) {
        let watches = tokio::sync::Mutex::new((HashMap::<String, Watch>::new(), JoinSet::new()));
        let definitions = self
            .definitions
            .run(Api::all(self.client.clone()), Config::default());
        let discovery = self.discovery.work("discovery", 1, async |(): &()| {
            let kinds = self.discover().await?;
            let mut watches = watches.lock().await;
            let (watches, tasks) = &mut *watches;
            self.follow(kinds, watches, tasks);
            if !*self.synced.borrow() {
                for watch in watches.values() {
                    watch.objects.synced().await;
                }
                tracing::debug!(
                    kinds = watches.len(),
                    objects = self.graph().len(),
                    "inventory is complete"
                );
                self.synced.send_replace(true);
            }
            Ok::<_, kube::Error>(Next::Event)
        });
        tokio::join!(definitions, discovery);
    }

    /// The kinds that can be listed and deleted, each in its preferred version and once: Events are served by two
    /// groups, own nothing and are owned by nothing.
    async fn discover(&self) -> Result<Vec<Kind>, kube::Error> {
        let discovery = match Discovery::new(self.client.clone()).run_aggregated().await {
            Ok(discovery) => discovery,
            Err(error) => {
                tracing::debug!(%error, "no aggregated discovery, asking group by group");
                Discovery::new(self.client.clone()).run().await?
            }
        };
        let resources = discovery
            .groups()
            .flat_map(|group| group.recommended_resources());
        let mut kinds: Vec<Kind> = resources
            .filter_map(|(resource, capabilities)| kind(resource, &capabilities))
            .collect();
        kinds.sort_by_key(|kind| name(&kind.resource));
        Ok(kinds)
    }

    /// Starts watches of new kinds and ends those of kinds that are gone, whose objects are gone with them.
    fn follow(
        self: &Arc<Self>,
        kinds: Vec<Kind>,
        watches: &mut HashMap<String, Watch>,
        tasks: &mut JoinSet<()>,
    ) {
        let wanted: BTreeMap<String, &Kind> = kinds
            .iter()
            .filter(|kind| kind.watched)
            .map(|kind| (name(&kind.resource), kind))
            .collect();
        let gone: HashSet<String> = watches
            .keys()
            .filter(|name| !wanted.contains_key(*name))
            .cloned()
            .collect();
        for name in gone {
            if let Some(watch) = watches.remove(&name) {
                watch.task.abort();
                for object in watch.objects.list() {
                    self.tell(&Change::Deleted(object), &watch.resource);
                }
            }
        }
        for (name, kind) in wanted {
            if watches.contains_key(&name) {
                continue;
            }
            // Names, owners and finalizers are all that is read.
            let objects = Cache::slimmed(|object: &mut PartialObjectMeta<DynamicObject>| {
                object.metadata.annotations = None;
                object.metadata.labels = None;
            });
            let inventory = Arc::clone(self);
            let resource = kind.resource.clone();
            objects.on_change(move |change| inventory.tell(change, &resource));
            let api = Api::<PartialObjectMeta<DynamicObject>>::all_with(
                self.client.clone(),
                &kind.resource,
            );
            let cache = objects.clone();
            let task = tasks.spawn(async move { cache.run(api, Config::default()).await });
            watches.insert(
                name,
                Watch {
                    resource: kind.resource.clone(),
                    objects,
                    task,
                },
            );
        }
        *self.kinds.write().unwrap_or_else(PoisonError::into_inner) = kinds;
    }

    fn tell(&self, change: &Change<PartialObjectMeta<DynamicObject>>, resource: &ApiResource) {
        let object = Arc::new(Object::read(&change.object().metadata, resource));
        let seen = match change {
            Change::Deleted(_) => Seen::Gone,
            Change::Added(_) | Change::Updated { .. } => Seen::Present,
        };
        match seen {
            Seen::Present => self.graph().put(Arc::clone(&object)),
            Seen::Gone => self.graph().remove(&object.uid),
        }
        for listener in self
            .listeners
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
        {
            listener(&object, seen);
        }
    }
}

fn kind(resource: ApiResource, capabilities: &ApiCapabilities) -> Option<Kind> {
    let can = |verb| capabilities.supports_operation(verb);
    if !can(verbs::LIST) || !can(verbs::DELETE) {
        return None;
    }
    let is_event =
        resource.kind == "Event" && matches!(resource.group.as_str(), "" | "events.k8s.io");
    if is_event && !resource.group.is_empty() {
        return None;
    }
    Some(Kind {
        namespaced: capabilities.scope == Scope::Namespaced,
        has_collection: can(verbs::DELETE_COLLECTION),
        watched: can(verbs::WATCH) && !is_event,
        resource,
    })
}

fn name(resource: &ApiResource) -> String {
    format!("{}.{}", resource.plural, resource.group)
}
