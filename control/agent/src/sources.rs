//! ConfigMaps and Secrets that pods of this node use: one watch for each object, shared by its users, ended with the
//! last of them. Only what pods name is ever read.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::runtime::watcher;
use kube::{Api, Client};
use meshgate_api::client::{Cache, Key};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

/// The kinds that hold data for pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum SourceKind {
    ConfigMap,
    Secret,
}

impl SourceKind {
    /// As messages about missing ones name it.
    fn word(self) -> &'static str {
        match self {
            SourceKind::ConfigMap => "configmap",
            SourceKind::Secret => "secret",
        }
    }
}

/// One object.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SourceKey {
    pub(crate) kind: SourceKind,
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl std::fmt::Display for SourceKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:?}", self.kind.word(), self.name)
    }
}

/// What is known of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Known {
    /// Not answered yet.
    Loading,
    /// It does not exist.
    Missing,
    /// Its data.
    Here(Arc<BTreeMap<String, Vec<u8>>>),
}

/// All watches of this node. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Sources {
    client: Client,
    open: Arc<Mutex<HashMap<SourceKey, Weak<Source>>>>,
}

/// A watched object.
pub(crate) struct Source {
    cache: AnyCache,
    listeners: Arc<Mutex<Vec<Weak<Notify>>>>,
    watch: AbortHandle,
}

enum AnyCache {
    ConfigMap(Cache<ConfigMap>),
    Secret(Cache<Secret>),
}

impl Drop for Source {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

impl Sources {
    pub(crate) fn new(client: Client) -> Sources {
        Sources {
            client,
            open: Arc::default(),
        }
    }

    /// The object, watched for as long as it is held; `changed` is told of every change.
    pub(crate) fn hold(&self, key: &SourceKey, changed: &Arc<Notify>) -> Arc<Source> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let source = match open.get(key).and_then(Weak::upgrade) {
            Some(source) => source,
            None => {
                open.retain(|_, source| source.strong_count() > 0);
                let source = Arc::new(self.watch(key));
                open.insert(key.clone(), Arc::downgrade(&source));
                source
            }
        };
        lock(&source.listeners).push(Arc::downgrade(changed));
        source
    }

    fn watch(&self, key: &SourceKey) -> Source {
        let listeners = Arc::default();
        let (cache, watch) = match key.kind {
            SourceKind::ConfigMap => {
                let (cache, watch) = self.run::<ConfigMap>(key, &listeners);
                (AnyCache::ConfigMap(cache), watch)
            }
            SourceKind::Secret => {
                let (cache, watch) = self.run::<Secret>(key, &listeners);
                (AnyCache::Secret(cache), watch)
            }
        };
        Source {
            cache,
            listeners,
            watch,
        }
    }

    fn run<K>(
        &self,
        key: &SourceKey,
        listeners: &Arc<Mutex<Vec<Weak<Notify>>>>,
    ) -> (Cache<K>, AbortHandle)
    where
        K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + serde::de::DeserializeOwned
            + Send
            + Sync
            + 'static,
    {
        let cache = Cache::<K>::default();
        let told = Arc::clone(listeners);
        cache.on_change(move |_| tell(&told));
        let api = Api::<K>::namespaced(self.client.clone(), &key.namespace);
        let config = watcher::Config::default().fields(&format!("metadata.name={}", key.name));
        let (running, told) = (cache.clone(), Arc::clone(listeners));
        // Owned by the Source, which aborts it when the last pod lets go.
        let task = tokio::spawn(async move {
            let synced = async {
                running.synced().await;
                // That it is missing is news too.
                tell(&told);
                std::future::pending::<()>().await;
            };
            tokio::select! {
                () = running.run(api, config) => {}
                () = synced => {}
            }
        });
        (cache, task.abort_handle())
    }
}

fn tell(listeners: &Mutex<Vec<Weak<Notify>>>) {
    lock(listeners).retain(|listener| match listener.upgrade() {
        Some(listener) => {
            listener.notify_one();
            true
        }
        None => false,
    });
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Source {
    /// The object as of now.
    pub(crate) fn known(&self, key: &SourceKey) -> Known {
        let at = Key::new(&key.namespace, &key.name);
        let (data, synced) = match &self.cache {
            AnyCache::ConfigMap(cache) => (
                cache.get(&at).map(|object| config_data(&object)),
                cache.is_synced(),
            ),
            AnyCache::Secret(cache) => (
                cache.get(&at).map(|object| secret_data(&object)),
                cache.is_synced(),
            ),
        };
        match data {
            Some(data) => Known::Here(Arc::new(data)),
            None if synced => Known::Missing,
            None => Known::Loading,
        }
    }
}

fn config_data(object: &ConfigMap) -> BTreeMap<String, Vec<u8>> {
    let text = object.data.iter().flatten();
    let binary = object.binary_data.iter().flatten();
    text.map(|(key, value)| (key.clone(), value.clone().into_bytes()))
        .chain(binary.map(|(key, value)| (key.clone(), value.0.clone())))
        .collect()
}

fn secret_data(object: &Secret) -> BTreeMap<String, Vec<u8>> {
    object
        .data
        .iter()
        .flatten()
        .map(|(key, value)| (key.clone(), value.0.clone()))
        .collect()
}
