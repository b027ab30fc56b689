//! The cluster as placement sees it: nodes with what runs on them, updated change by change.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Taint;
use meshgate_api::client::{BadQuantity, Quantity};

use crate::pod::Pod;
use crate::resources::Resources;
use crate::wire;

/// Pods per node where the node does not say.
const PODS_MAX: i64 = 110;

/// A node and what its pods use.
#[derive(Debug, Clone)]
pub struct Node {
    /// The node itself.
    pub facts: NodeFacts,
    pub(crate) used: Resources,
    /// As `used`, but with the least assumed of each pod: what scoring counts.
    pub(crate) used_assumed: Resources,
    pub(crate) pods: BTreeMap<String, Arc<Pod>>,
}

/// What a node says of itself.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeFacts {
    /// Name.
    pub name: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Taints.
    pub taints: Vec<Taint>,
    /// Cordoned.
    pub unschedulable: bool,
    /// Amounts that pods can use.
    pub allocatable: Resources,
    /// Most pods.
    pub pods_max: i64,
}

impl TryFrom<&wire::Node> for NodeFacts {
    type Error = BadQuantity;

    fn try_from(node: &wire::Node) -> Result<Self, BadQuantity> {
        let name = node.metadata.name.clone().unwrap_or_default();
        let mut labels = node.metadata.labels.clone().unwrap_or_default();
        labels
            .entry("kubernetes.io/hostname".to_owned())
            .or_insert_with(|| name.clone());
        let offered = if node.status.allocatable.is_empty() {
            &node.status.capacity
        } else {
            &node.status.allocatable
        };
        let pods_max = match offered.get("pods") {
            Some(pods) => Quantity::parse(&pods.0)?.units(),
            None => PODS_MAX,
        };
        Ok(Self {
            name,
            labels,
            taints: node.spec.taints.clone(),
            unschedulable: node.spec.unschedulable,
            allocatable: Resources::read(offered)?,
            pods_max,
        })
    }
}

impl Node {
    fn new(facts: NodeFacts) -> Self {
        Self {
            facts,
            used: Resources::default(),
            used_assumed: Resources::default(),
            pods: BTreeMap::new(),
        }
    }

    fn add(&mut self, pod: Arc<Pod>) {
        self.used.add(&pod.requests);
        self.used_assumed.add(&pod.requests.assumed());
        self.pods.insert(pod.uid.clone(), pod);
    }

    fn remove(&mut self, uid: &str) {
        if let Some(pod) = self.pods.remove(uid) {
            self.used.subtract(&pod.requests);
            self.used_assumed.subtract(&pod.requests.assumed());
        }
    }
}

/// Nodes and the pods placed on them.
#[derive(Debug, Clone, Default)]
pub struct Cluster {
    nodes: BTreeMap<String, Node>,
    /// Node name and pod, by the pod's UID; also of pods on nodes that we do not know (yet).
    placed: HashMap<String, (String, Arc<Pod>)>,
    /// UIDs of placed pods that want to be near or far from others.
    choosy: BTreeSet<String>,
    /// Labels of namespaces, for affinity terms that select namespaces.
    namespaces: BTreeMap<String, BTreeMap<String, String>>,
}

impl Cluster {
    /// All nodes, by name.
    pub fn nodes(&self) -> impl ExactSizeIterator<Item = &Node> {
        self.nodes.values()
    }

    /// A node.
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.get(name)
    }

    /// Adds or changes a node. Returns whether anything that placement reads has changed.
    pub fn set_node(&mut self, facts: NodeFacts) -> bool {
        if let Some(node) = self.nodes.get_mut(&facts.name) {
            let changed = node.facts != facts;
            node.facts = facts;
            return changed;
        }
        let mut node = Node::new(facts);
        for (name, pod) in self.placed.values() {
            if *name == node.facts.name {
                node.add(Arc::clone(pod));
            }
        }
        self.nodes.insert(node.facts.name.clone(), node);
        true
    }

    /// Forgets a node; its pods stay known until they are removed.
    pub fn remove_node(&mut self, name: &str) {
        self.nodes.remove(name);
    }

    /// Puts a pod on a node, or moves or updates it.
    pub fn set_pod(&mut self, node: &str, pod: Arc<Pod>) {
        if let Some((known_node, known)) = self.placed.get(&pod.uid)
            && known_node == node
            && *known == pod
        {
            return;
        }
        self.remove_pod(&pod.uid);
        if let Some(node) = self.nodes.get_mut(node) {
            node.add(Arc::clone(&pod));
        }
        if !pod.neighbours.is_empty() {
            self.choosy.insert(pod.uid.clone());
        }
        self.placed.insert(pod.uid.clone(), (node.to_owned(), pod));
    }

    /// Takes a pod off its node. Returns the node's name if it was on one.
    pub fn remove_pod(&mut self, uid: &str) -> Option<String> {
        let (name, _) = self.placed.remove(uid)?;
        self.choosy.remove(uid);
        if let Some(node) = self.nodes.get_mut(&name) {
            node.remove(uid);
        }
        Some(name)
    }

    /// Whether the pod is on a node.
    pub fn is_placed(&self, uid: &str) -> bool {
        self.placed.contains_key(uid)
    }

    /// Sets a namespace's labels; `None` forgets it.
    pub fn set_namespace(&mut self, name: &str, labels: Option<BTreeMap<String, String>>) {
        match labels {
            Some(labels) => self.namespaces.insert(name.to_owned(), labels),
            None => self.namespaces.remove(name),
        };
    }

    pub(crate) fn namespace_labels(&self, name: &str) -> Option<&BTreeMap<String, String>> {
        self.namespaces.get(name)
    }

    /// Placed pods that want to be near or far from others, with their nodes.
    pub(crate) fn choosy_pods(&self) -> impl Iterator<Item = (&Node, &Pod)> {
        self.choosy.iter().filter_map(|uid| {
            let (node, pod) = self.placed.get(uid)?;
            Some((self.nodes.get(node)?, &**pod))
        })
    }
}
