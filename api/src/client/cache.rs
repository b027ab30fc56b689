//! One kind's objects in memory, kept current by one watch.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Debug};
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use futures::StreamExt;
use kube::core::ObjectMeta;
use kube::runtime::watcher::{self, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use super::write::resource_version;

/// Wait before a failed watch is tried again, doubling; the first is short because at start-up the API server
/// may simply not be there yet.
const RETRY_MIN: Duration = Duration::from_millis(20);
/// Where `kubectl apply` keeps the whole object once more.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Ceiling of the wait between attempts to watch.
const RETRY_MAX: Duration = Duration::from_secs(5);

/// Namespace and name. The namespace of cluster-scoped objects is empty.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Empty for cluster-scoped objects.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
}

impl Key {
    /// Key of a namespaced object.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    /// Key of a cluster-scoped object.
    pub fn cluster(name: impl Into<String>) -> Self {
        Self::new("", name)
    }

    /// Key of an object of any kind.
    pub fn of<K: Resource>(object: &K) -> Self {
        let meta = object.meta();
        Self::new(
            meta.namespace.clone().unwrap_or_default(),
            meta.name.clone().unwrap_or_default(),
        )
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

impl Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// What happened to one object, told after the cache shows it.
#[derive(Debug, Clone)]
pub enum Change<K> {
    /// The object is new to us.
    Added(Arc<K>),
    /// The object changed.
    Updated {
        /// As it was known until now.
        before: Arc<K>,
        /// As it is now.
        after: Arc<K>,
    },
    /// The object is gone; its last state.
    Deleted(Arc<K>),
}

impl<K> Change<K> {
    /// The object in its newest known state.
    pub fn object(&self) -> &Arc<K> {
        match self {
            Self::Added(object) | Self::Updated { after: object, .. } | Self::Deleted(object) => {
                object
            }
        }
    }

    /// The object in each state that this change knows: relations of the old state may concern others than those of
    /// the new one.
    pub fn states(&self) -> impl Iterator<Item = &Arc<K>> {
        let (first, second) = match self {
            Self::Added(object) | Self::Deleted(object) => (object, None),
            Self::Updated { before, after } => (after, Some(before)),
        };
        std::iter::once(first).chain(second)
    }
}

type Listener<K> = Box<dyn Fn(&Change<K>) + Send + Sync>;

/// One kind's objects, read from memory. Cheap to clone; all clones are one cache.
///
/// Listeners are added first, then [`Cache::run`] is driven by exactly one task. What only servers and `kubectl apply`
/// read of an object's metadata is dropped, since it can be most of the object.
pub struct Cache<K> {
    shared: Arc<Shared<K>>,
}

struct Shared<K> {
    objects: RwLock<BTreeMap<Key, Arc<K>>>,
    listeners: RwLock<Vec<Listener<K>>>,
    /// Drops what nobody reads before an object is kept.
    slim: fn(&mut K),
    /// Highest resource version seen in an object or a deletion.
    observed: AtomicU64,
    synced: watch::Sender<bool>,
    /// Keys of the list under way; what is not in it when it ends is gone.
    listing: Mutex<Option<BTreeSet<Key>>>,
}

impl<K> Clone for Cache<K> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<K> Debug for Cache<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache")
            .field("objects", &self.len())
            .field("synced", &*self.shared.synced.borrow())
            .finish()
    }
}

impl<K> Default for Cache<K> {
    fn default() -> Self {
        Self::slimmed(|_| {})
    }
}

impl<K> Cache<K> {
    /// A cache whose objects go through `slim` first, which drops what nobody reads.
    pub fn slimmed(slim: fn(&mut K)) -> Self {
        Self {
            shared: Arc::new(Shared {
                objects: RwLock::default(),
                listeners: RwLock::default(),
                slim,
                observed: AtomicU64::new(0),
                synced: watch::Sender::new(false),
                listing: Mutex::default(),
            }),
        }
    }

    /// The object, if it exists.
    pub fn get(&self, key: &Key) -> Option<Arc<K>> {
        self.objects().get(key).cloned()
    }

    /// All objects, ordered by namespace and name.
    pub fn list(&self) -> Vec<Arc<K>> {
        self.objects().values().cloned().collect()
    }

    /// A namespace's objects, ordered by name.
    pub fn in_namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        let from = Key::new(namespace, "");
        self.objects()
            .range((Bound::Included(from), Bound::Unbounded))
            .take_while(|(key, _)| key.namespace == namespace)
            .map(|(_, object)| Arc::clone(object))
            .collect()
    }

    /// Number of objects.
    pub fn len(&self) -> usize {
        self.objects().len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.objects().is_empty()
    }

    /// Highest resource version seen so far. An own write with a higher one is not visible here yet: who decides
    /// from this cache should wait for it (resource versions are comparable, KEP-5504).
    pub fn observed(&self) -> u64 {
        self.shared.observed.load(Ordering::Acquire)
    }

    /// Whether the first list is complete.
    pub fn is_synced(&self) -> bool {
        *self.shared.synced.borrow()
    }

    /// Returns once the first list is complete.
    pub async fn synced(&self) {
        let mut synced = self.shared.synced.subscribe();
        // An error means that the sender is gone; `self` holds it.
        let _ = synced.wait_for(|synced| *synced).await;
    }

    /// Calls `listener` after each change, from the watching task: it must be quick and must not block.
    pub fn on_change(&self, listener: impl Fn(&Change<K>) + Send + Sync + 'static) {
        self.shared
            .listeners
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Box::new(listener));
    }

    fn objects(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<Key, Arc<K>>> {
        self.shared
            .objects
            .read()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, change: &Change<K>) {
        for listener in self
            .shared
            .listeners
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
        {
            listener(change);
        }
    }
}

impl<K: Resource> Cache<K> {
    /// Takes up an object as new or changed. Public for tests of what reads the cache; otherwise the watch does it.
    pub fn apply(&self, mut object: K) {
        trim(object.meta_mut());
        (self.shared.slim)(&mut object);
        let key = Key::of(&object);
        if let Some(listing) = self
            .shared
            .listing
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .as_mut()
        {
            listing.insert(key.clone());
        }
        let after = Arc::new(object);
        let before = {
            let mut objects = self
                .shared
                .objects
                .write()
                .unwrap_or_else(PoisonError::into_inner);
            objects.insert(key, Arc::clone(&after))
        };
        // Only now: whoever waits for this version must find the object.
        self.observe(&after);
        match before {
            None => self.tell(&Change::Added(after)),
            Some(before) if same_version(&*before, &*after) => {}
            // Deleted and created again under one name between two events of ours.
            Some(before) if before.meta().uid != after.meta().uid => {
                self.tell(&Change::Deleted(before));
                self.tell(&Change::Added(after));
            }
            Some(before) => self.tell(&Change::Updated { before, after }),
        }
    }

    /// Forgets an object; the argument is its last state.
    pub fn delete(&self, object: K) {
        let key = Key::of(&object);
        let known = self
            .shared
            .objects
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&key);
        self.observe(&object);
        if known.is_some() {
            self.tell(&Change::Deleted(Arc::new(object)));
        }
    }

    fn observe(&self, object: &K) {
        self.shared
            .observed
            .fetch_max(resource_version(object.meta()), Ordering::AcqRel);
    }

    /// A list begins: whatever it does not mention is gone when it ends.
    pub fn list_begins(&self) {
        *self
            .shared
            .listing
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(BTreeSet::new());
    }

    /// The list is complete.
    pub fn list_ends(&self) {
        let listed = self
            .shared
            .listing
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(listed) = listed {
            let gone: Vec<Arc<K>> = {
                let mut objects = self
                    .shared
                    .objects
                    .write()
                    .unwrap_or_else(PoisonError::into_inner);
                let keys: Vec<Key> = objects
                    .keys()
                    .filter(|key| !listed.contains(key))
                    .cloned()
                    .collect();
                keys.iter().filter_map(|key| objects.remove(key)).collect()
            };
            for object in gone {
                self.tell(&Change::Deleted(object));
            }
        }
        self.shared.synced.send_replace(true);
    }
}

fn trim(meta: &mut ObjectMeta) {
    meta.managed_fields = None;
    if let Some(annotations) = &mut meta.annotations {
        annotations.remove(LAST_APPLIED);
    }
}

fn same_version<K: Resource>(before: &K, after: &K) -> bool {
    before.meta().uid == after.meta().uid
        && after.meta().resource_version.is_some()
        && before.meta().resource_version == after.meta().resource_version
}

impl<K> Cache<K>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    /// Lists and watches `api` forever, through every failure; dropping the future ends it.
    pub async fn run(&self, api: Api<K>, config: watcher::Config) {
        let kind = short_kind::<K>();
        let mut events = std::pin::pin!(watcher(api, config));
        let mut wait = RETRY_MIN;
        while let Some(event) = events.next().await {
            match event {
                // No success yet: the list follows.
                Ok(watcher::Event::Init) => self.list_begins(),
                Ok(watcher::Event::InitDone) => {
                    wait = RETRY_MIN;
                    self.list_ends();
                }
                Ok(watcher::Event::InitApply(object) | watcher::Event::Apply(object)) => {
                    wait = RETRY_MIN;
                    self.apply(object);
                }
                Ok(watcher::Event::Delete(object)) => {
                    wait = RETRY_MIN;
                    self.delete(object);
                }
                Err(error) => {
                    tracing::debug!(kind, %error, wait_ms = wait.as_millis() as u64, "watch failed, retrying");
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(RETRY_MAX);
                }
            }
        }
    }
}

fn short_kind<K>() -> &'static str {
    let name = std::any::type_name::<K>();
    name.rsplit("::").next().unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::ConfigMap;

    fn object(name: &str, uid: &str, version: u64) -> ConfigMap {
        let (namespace, name) = name.split_once('/').expect("namespace/name");
        ConfigMap {
            metadata: ObjectMeta {
                namespace: Some(namespace.into()),
                name: Some(name.into()),
                uid: Some(uid.into()),
                resource_version: Some(version.to_string()),
                ..ObjectMeta::default()
            },
            ..ConfigMap::default()
        }
    }

    fn recorded() -> (Cache<ConfigMap>, Arc<Mutex<Vec<String>>>) {
        let cache = Cache::default();
        let log = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&log);
        cache.on_change(move |change| {
            let verb = match change {
                Change::Added(_) => "+",
                Change::Updated { .. } => "~",
                Change::Deleted(_) => "-",
            };
            let key = Key::of(&**change.object());
            told.lock()
                .expect("not poisoned")
                .push(format!("{verb}{key}"));
        });
        (cache, log)
    }

    #[test]
    fn listeners_hear_each_change_once() {
        let (cache, log) = recorded();
        cache.list_begins();
        cache.apply(object("a/one", "1", 1));
        cache.apply(object("b/two", "2", 2));
        cache.list_ends();
        cache.apply(object("a/one", "1", 3));
        cache.apply(object("a/one", "1", 3));
        cache.apply(object("a/one", "9", 4));
        cache.delete(object("b/two", "2", 5));
        assert_eq!(
            log.lock().unwrap().as_slice(),
            ["+a/one", "+b/two", "~a/one", "-a/one", "+a/one", "-b/two"]
        );
        assert_eq!(cache.observed(), 5);
    }

    #[test]
    fn a_new_list_removes_what_it_does_not_mention() {
        let (cache, log) = recorded();
        cache.list_begins();
        cache.apply(object("a/one", "1", 1));
        cache.apply(object("a/two", "2", 2));
        cache.list_ends();
        cache.list_begins();
        cache.apply(object("a/two", "2", 2));
        assert!(
            cache.get(&Key::new("a", "one")).is_some(),
            "a list under way hides nothing"
        );
        cache.list_ends();
        assert_eq!(
            log.lock().unwrap().as_slice(),
            ["+a/one", "+a/two", "-a/one"]
        );
    }

    #[test]
    fn a_namespace_is_a_range() {
        let cache = Cache::default();
        for (uid, name) in ["a/x", "a-b/x", "a/y", "b/x"].iter().enumerate() {
            cache.apply(object(name, &uid.to_string(), 1));
        }
        let names: Vec<String> = cache
            .in_namespace("a")
            .iter()
            .map(|o| Key::of(&**o).to_string())
            .collect();
        assert_eq!(names, ["a/x", "a/y"]);
    }
}
