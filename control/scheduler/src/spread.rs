//! Topology spread constraints: how evenly pods alike are spread over zones, nodes or other domains.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use k8s_openapi::api::core::v1::TopologySpreadConstraint;
use kube::core::{Expression, Selector, SelectorExt};

use crate::cluster::{Cluster, Node};
use crate::filter::tolerates_all;
use crate::pod::{BadSelector, Pod};

/// One constraint of a pod.
#[derive(Debug, Clone, PartialEq)]
pub struct Constraint {
    topology_key: String,
    /// Most pods that a domain may have above the emptiest one.
    max_skew: i64,
    /// Fewer domains than this count as an empty one beside them.
    min_domains: usize,
    selector: Selector,
    required: bool,
    honor_affinity: bool,
    honor_taints: bool,
}

/// A constraint that is not understood.
#[derive(Debug, thiserror::Error)]
#[error("constraint on {topology_key:?}")]
pub struct BadConstraint {
    topology_key: String,
    #[source]
    source: BadSelector,
}

impl Constraint {
    pub(crate) fn read_all(
        constraints: &[TopologySpreadConstraint],
        labels: &BTreeMap<String, String>,
    ) -> Result<Vec<Self>, BadConstraint> {
        constraints
            .iter()
            .map(|constraint| Self::read(constraint, labels))
            .collect()
    }

    fn read(
        wire: &TopologySpreadConstraint,
        labels: &BTreeMap<String, String>,
    ) -> Result<Self, BadConstraint> {
        // Without a selector a constraint counts no pods at all.
        let mut selector = match wire.label_selector.clone() {
            None => Selector::from(Expression::In(String::new(), BTreeSet::new())),
            Some(selector) => Selector::try_from(selector).map_err(|source| BadConstraint {
                topology_key: wire.topology_key.clone(),
                source: BadSelector(source),
            })?,
        };
        for key in wire.match_label_keys.iter().flatten() {
            if let Some(value) = labels.get(key) {
                selector.extend(Expression::Equal(key.clone(), value.clone()));
            }
        }
        Ok(Self {
            topology_key: wire.topology_key.clone(),
            max_skew: i64::from(wire.max_skew.max(1)),
            min_domains: usize::try_from(wire.min_domains.unwrap_or(1)).unwrap_or(1),
            selector,
            required: wire.when_unsatisfiable != "ScheduleAnyway",
            honor_affinity: wire.node_affinity_policy.as_deref() != Some("Ignore"),
            honor_taints: wire.node_taints_policy.as_deref() == Some("Honor"),
        })
    }

    fn counts_node(&self, pod: &Pod, node: &Node) -> bool {
        (!self.honor_affinity || pod.nodes.accepts(&node.facts.name, &node.facts.labels))
            && (!self.honor_taints || tolerates_all(pod, &node.facts.taints))
    }
}

/// A pod's constraints with the pods counted that already run.
#[derive(Debug)]
pub(crate) struct Spread<'a> {
    required: Vec<Counted<'a>>,
    preferred: Vec<Counted<'a>>,
}

#[derive(Debug)]
struct Counted<'a> {
    constraint: &'a Constraint,
    /// Pods alike by the domain's name.
    domains: HashMap<&'a str, i64>,
    emptiest: i64,
    /// Whether the pod itself will count.
    counts_itself: bool,
}

/// Why a node does not do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Uneven {
    /// The node is in no domain.
    MissingLabel,
    /// The node's domain has too many pods alike.
    Skew,
}

impl<'a> Spread<'a> {
    pub(crate) fn count(pod: &'a Pod, cluster: &'a Cluster) -> Self {
        let (required, preferred): (Vec<_>, Vec<_>) = pod
            .spread
            .iter()
            .partition(|constraint| constraint.required);
        let count = |group: Vec<&'a Constraint>| -> Vec<Counted<'a>> {
            let in_all_domains = |node: &Node| {
                group
                    .iter()
                    .all(|c| node.facts.labels.contains_key(&c.topology_key))
            };
            let nodes: Vec<&Node> = cluster
                .nodes()
                .filter(|node| in_all_domains(node))
                .collect();
            group
                .iter()
                .map(|constraint| Counted::new(constraint, pod, &nodes))
                .collect()
        };
        Self {
            required: count(required),
            preferred: count(preferred),
        }
    }

    /// Whether the node satisfies the required constraints.
    pub(crate) fn permits(&self, node: &Node) -> Result<(), Uneven> {
        for counted in &self.required {
            let domain = node
                .facts
                .labels
                .get(&counted.constraint.topology_key)
                .ok_or(Uneven::MissingLabel)?;
            let here = counted.domains.get(domain.as_str()).copied().unwrap_or(0);
            if here + i64::from(counted.counts_itself) - counted.emptiest
                > counted.constraint.max_skew
            {
                return Err(Uneven::Skew);
            }
        }
        Ok(())
    }

    /// How crowded the node's domains are by the preferred constraints; `None` where there are none. Less is better.
    pub(crate) fn crowding(&self, node: &Node) -> Option<i64> {
        if self.preferred.is_empty() {
            return None;
        }
        let crowding = self.preferred.iter().map(|counted| {
            let domain = node.facts.labels.get(&counted.constraint.topology_key);
            match domain.and_then(|domain| counted.domains.get(domain.as_str())) {
                // In many small domains one pod weighs more than in few large ones.
                Some(here) => {
                    here * i64::from(usize::BITS - (counted.domains.len() + 2).leading_zeros())
                }
                // No domain at all is worse than the most crowded one.
                None => counted.domains.values().max().copied().unwrap_or(0) * 64 + 1,
            }
        });
        Some(crowding.sum())
    }
}

impl<'a> Counted<'a> {
    fn new(constraint: &'a Constraint, pod: &Pod, nodes: &[&'a Node]) -> Self {
        let mut domains: HashMap<&str, i64> = HashMap::new();
        for node in nodes {
            if !constraint.counts_node(pod, node) {
                continue;
            }
            let alike = node.pods.values().filter(|other| {
                other.key.namespace == pod.key.namespace
                    && constraint.selector.matches(&other.labels)
            });
            let count = i64::try_from(alike.count()).unwrap_or(i64::MAX);
            if let Some(domain) = node.facts.labels.get(&constraint.topology_key) {
                *domains.entry(domain).or_default() += count;
            }
        }
        let emptiest = if domains.len() < constraint.min_domains {
            0
        } else {
            domains.values().min().copied().unwrap_or(0)
        };
        Self {
            constraint,
            domains,
            emptiest,
            counts_itself: constraint.selector.matches(&pod.labels),
        }
    }
}
