//! What is known of live objects: enough to tell whether a token's subjects still exist, and what a node's pods use.

use std::collections::{BTreeSet, HashMap};

use jiff::Timestamp;
use serde_json::Value;

pub(super) const RESOURCES: [&str; 4] = ["pods", "serviceaccounts", "secrets", "nodes"];

/// Namespace (empty for cluster scope) and name.
type Key = (Box<str>, Box<str>);

/// How long an object that is being deleted still counts as there, after the moment it should have been gone:
/// finalizers may keep it for ever, and with it the tokens that are bound to it.
const DELETED_LEEWAY_S: i64 = 60;

/// Live objects, and pods in some detail.
#[derive(Debug, Default)]
pub(super) struct Live {
    accounts: HashMap<Key, Life>,
    secrets: HashMap<Key, Life>,
    nodes: HashMap<Box<str>, Life>,
    pods: HashMap<Key, Pod>,
    /// Keys of the pods of each node.
    by_node: HashMap<Box<str>, BTreeSet<Key>>,
}

/// An object that is there.
#[derive(Debug, Default)]
pub(super) struct Life {
    pub(super) uid: Box<str>,
    /// Unix seconds; set once its deletion was asked for.
    ends_s: Option<i64>,
}

impl Life {
    fn of(object: &Value) -> Self {
        let metadata = &object["metadata"];
        let ends = metadata["deletionTimestamp"].as_str();
        let ends = ends.and_then(|ends| ends.parse::<Timestamp>().ok());
        Self {
            uid: text(&metadata["uid"]),
            ends_s: ends.map(Timestamp::as_second),
        }
    }

    /// Whether this is still the object with that UID.
    pub(super) fn is(&self, uid: &str, now: Timestamp) -> bool {
        let is_over = |ends_s: i64| ends_s.saturating_add(DELETED_LEEWAY_S) < now.as_second();
        *self.uid == *uid && !self.ends_s.is_some_and(is_over)
    }
}

/// A pod: where it runs and what it refers to in its namespace.
#[derive(Debug, Default)]
pub(super) struct Pod {
    pub(super) life: Life,
    /// Empty before it is bound.
    pub(super) node: Box<str>,
    pub(super) service_account: Box<str>,
    pub(super) secrets: BTreeSet<Box<str>>,
    pub(super) config_maps: BTreeSet<Box<str>>,
    /// Audiences of its projected tokens; the empty one is the API server's.
    pub(super) audiences: BTreeSet<Box<str>>,
}

impl Live {
    pub(super) fn update(
        &mut self,
        resource: &str,
        namespace: &str,
        name: &str,
        object: Option<&Value>,
    ) {
        let key: Key = (namespace.into(), name.into());
        match resource {
            "serviceaccounts" => set(&mut self.accounts, key, object),
            "secrets" => set(&mut self.secrets, key, object),
            "nodes" => set(&mut self.nodes, key.1, object),
            "pods" => self.set_pod(key, object.map(Pod::of)),
            _ => {}
        }
    }

    fn set_pod(&mut self, key: Key, pod: Option<Pod>) {
        if let Some(old) = self.pods.remove(&key)
            && let Some(keys) = self.by_node.get_mut(&old.node)
        {
            keys.remove(&key);
            if keys.is_empty() {
                self.by_node.remove(&old.node);
            }
        }
        if let Some(pod) = pod {
            if !pod.node.is_empty() {
                let keys = self.by_node.entry(pod.node.clone()).or_default();
                keys.insert(key.clone());
            }
            self.pods.insert(key, pod);
        }
    }

    pub(super) fn account(&self, namespace: &str, name: &str) -> Option<&Life> {
        self.accounts.get(&(namespace.into(), name.into()))
    }

    pub(super) fn secret(&self, namespace: &str, name: &str) -> Option<&Life> {
        self.secrets.get(&(namespace.into(), name.into()))
    }

    pub(super) fn node(&self, name: &str) -> Option<&Life> {
        self.nodes.get(name)
    }

    pub(super) fn pod(&self, namespace: &str, name: &str) -> Option<&Pod> {
        self.pods.get(&(namespace.into(), name.into()))
    }

    /// The pods of `node` in `namespace`.
    pub(super) fn pods_of<'a>(
        &'a self,
        node: &str,
        namespace: &'a str,
    ) -> impl Iterator<Item = &'a Pod> {
        let keys = self.by_node.get(node).into_iter().flatten();
        keys.filter(move |(of, _)| &**of == namespace)
            .filter_map(|key| self.pods.get(key))
    }
}

fn set<K: Eq + std::hash::Hash>(map: &mut HashMap<K, Life>, key: K, object: Option<&Value>) {
    match object {
        Some(object) => map.insert(key, Life::of(object)),
        None => map.remove(&key),
    };
}

impl Pod {
    fn of(object: &Value) -> Self {
        let spec = &object["spec"];
        let mut pod = Self {
            life: Life::of(object),
            node: text(&spec["nodeName"]),
            service_account: text(&spec["serviceAccountName"]),
            ..Self::default()
        };
        for secret in items(&spec["imagePullSecrets"]) {
            pod.secrets.insert(text(&secret["name"]));
        }
        for volume in items(&spec["volumes"]) {
            pod.volume(volume);
        }
        for field in ["containers", "initContainers", "ephemeralContainers"] {
            for container in items(&spec[field]) {
                pod.container(container);
            }
        }
        pod.secrets.remove("");
        pod.config_maps.remove("");
        pod
    }

    fn volume(&mut self, volume: &Value) {
        self.secrets.insert(text(&volume["secret"]["secretName"]));
        self.config_maps.insert(text(&volume["configMap"]["name"]));
        for source in items(&volume["projected"]["sources"]) {
            self.secrets.insert(text(&source["secret"]["name"]));
            self.config_maps.insert(text(&source["configMap"]["name"]));
            if let Some(token) = source.get("serviceAccountToken") {
                self.audiences.insert(text(&token["audience"]));
            }
        }
    }

    fn container(&mut self, container: &Value) {
        for source in items(&container["envFrom"]) {
            self.secrets.insert(text(&source["secretRef"]["name"]));
            self.config_maps
                .insert(text(&source["configMapRef"]["name"]));
        }
        for variable in items(&container["env"]) {
            let from = &variable["valueFrom"];
            self.secrets.insert(text(&from["secretKeyRef"]["name"]));
            self.config_maps
                .insert(text(&from["configMapKeyRef"]["name"]));
        }
    }
}

fn text(value: &Value) -> Box<str> {
    value.as_str().unwrap_or_default().into()
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}
