//! Inter-pod affinity: near or far from which other pods a pod wants to be.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use k8s_openapi::api::core::v1::{Affinity, PodAffinityTerm, WeightedPodAffinityTerm};
use kube::core::{Expression, Selector, SelectorExt};

use crate::cluster::{Cluster, Node};
use crate::pod::{BadSelector, Pod};

/// Weight that a placed pod's required affinity gives a newcomer that satisfies it.
const REQUIRED_WEIGHT: i64 = 1;

/// All inter-pod terms of a pod.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Neighbours {
    near: Vec<Term>,
    far: Vec<Term>,
    /// Weighted; negative weights are preferred distance.
    preferred: Vec<(i64, Term)>,
}

#[derive(Debug, Clone, PartialEq)]
struct Term {
    topology_key: String,
    selector: Selector,
    namespaces: BTreeSet<String>,
    /// Namespaces by their labels, in addition.
    namespace_selector: Option<Selector>,
}

/// An affinity term that is not understood.
#[derive(Debug, thiserror::Error)]
#[error("pod affinity term on {topology_key:?}")]
pub struct BadNeighbourTerm {
    topology_key: String,
    #[source]
    source: BadSelector,
}

impl Neighbours {
    pub(crate) fn read(
        affinity: &Affinity,
        namespace: &str,
        labels: &BTreeMap<String, String>,
    ) -> Result<Self, BadNeighbourTerm> {
        let near = affinity.pod_affinity.clone().unwrap_or_default();
        let far = affinity.pod_anti_affinity.clone().unwrap_or_default();
        let read = |terms: Option<Vec<PodAffinityTerm>>| -> Result<Vec<Term>, BadNeighbourTerm> {
            terms
                .iter()
                .flatten()
                .map(|term| Term::read(term, namespace, labels))
                .collect()
        };
        let weighted = |terms: Option<Vec<WeightedPodAffinityTerm>>, sign: i64| {
            let terms = terms.into_iter().flatten();
            terms.map(move |term| {
                Ok((
                    sign * i64::from(term.weight),
                    Term::read(&term.pod_affinity_term, namespace, labels)?,
                ))
            })
        };
        let preferred_near = weighted(near.preferred_during_scheduling_ignored_during_execution, 1);
        let preferred_far = weighted(far.preferred_during_scheduling_ignored_during_execution, -1);
        Ok(Self {
            preferred: preferred_near
                .chain(preferred_far)
                .collect::<Result<_, _>>()?,
            near: read(near.required_during_scheduling_ignored_during_execution)?,
            far: read(far.required_during_scheduling_ignored_during_execution)?,
        })
    }

    /// Whether the pod does not care.
    pub(crate) fn is_empty(&self) -> bool {
        self.near.is_empty() && self.far.is_empty() && self.preferred.is_empty()
    }
}

impl Term {
    fn read(
        wire: &PodAffinityTerm,
        namespace: &str,
        labels: &BTreeMap<String, String>,
    ) -> Result<Self, BadNeighbourTerm> {
        let parse = |selector| {
            Selector::try_from(selector).map_err(|source| BadNeighbourTerm {
                topology_key: wire.topology_key.clone(),
                source: BadSelector(source),
            })
        };
        // Without a selector a term matches no pod.
        let mut selector = match wire.label_selector.clone() {
            None => Selector::from(Expression::In(String::new(), BTreeSet::new())),
            Some(selector) => parse(selector)?,
        };
        for key in wire.match_label_keys.iter().flatten() {
            if let Some(value) = labels.get(key) {
                selector.extend(Expression::Equal(key.clone(), value.clone()));
            }
        }
        for key in wire.mismatch_label_keys.iter().flatten() {
            if let Some(value) = labels.get(key) {
                selector.extend(Expression::NotIn(key.clone(), [value.clone()].into()));
            }
        }
        let mut namespaces: BTreeSet<String> = wire.namespaces.iter().flatten().cloned().collect();
        if namespaces.is_empty() && wire.namespace_selector.is_none() {
            namespaces.insert(namespace.to_owned());
        }
        Ok(Self {
            topology_key: wire.topology_key.clone(),
            selector,
            namespaces,
            namespace_selector: wire.namespace_selector.clone().map(parse).transpose()?,
        })
    }

    fn matches(&self, pod: &Pod, cluster: &Cluster) -> bool {
        self.selector.matches(&pod.labels) && self.covers_namespace(&pod.key.namespace, cluster)
    }

    fn covers_namespace(&self, namespace: &str, cluster: &Cluster) -> bool {
        self.namespaces.contains(namespace)
            || self.namespace_selector.as_ref().is_some_and(|selector| {
                selector.selects_all()
                    || cluster
                        .namespace_labels(namespace)
                        .is_some_and(|labels| selector.matches(labels))
            })
    }
}

/// A domain: the topology key and the node's value of it.
type Domain<'a> = (&'a str, &'a str);

/// What a pod's own terms and those of the pods around it say about each domain.
#[derive(Debug)]
pub(crate) struct Neighbourhood<'a> {
    pod: &'a Pod,
    /// Per required affinity term: domains with a matching pod.
    near: Vec<HashSet<&'a str>>,
    /// No pod matches yet, but this pod would match itself: the first of its kind may go anywhere.
    first_of_kind: bool,
    /// Domains that the pod's own anti-affinity forbids.
    far: HashSet<Domain<'a>>,
    /// Domains that placed pods' anti-affinity forbids.
    refused: HashSet<Domain<'a>>,
    weights: HashMap<Domain<'a>, i64>,
}

/// Why a node does not do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unneighbourly {
    Affinity,
    AntiAffinity,
    RefusedByOthers,
}

impl<'a> Neighbourhood<'a> {
    pub(crate) fn survey(pod: &'a Pod, cluster: &'a Cluster) -> Self {
        let mut survey = Self {
            pod,
            near: vec![HashSet::new(); pod.neighbours.near.len()],
            first_of_kind: false,
            far: HashSet::new(),
            refused: HashSet::new(),
            weights: HashMap::new(),
        };
        for (node, other) in cluster.choosy_pods() {
            survey.hear(node, other, cluster);
        }
        if !pod.neighbours.is_empty() {
            for node in cluster.nodes() {
                for other in node.pods.values() {
                    survey.look_at(node, other, cluster);
                }
            }
        }
        survey.first_of_kind = survey.near.iter().all(HashSet::is_empty)
            && pod
                .neighbours
                .near
                .iter()
                .all(|term| term.matches(pod, cluster));
        survey
    }

    /// What a placed pod says about the newcomer.
    fn hear(&mut self, node: &'a Node, other: &'a Pod, cluster: &Cluster) {
        for term in &other.neighbours.far {
            if let Some(domain) = domain(node, term)
                && term.matches(self.pod, cluster)
            {
                self.refused.insert(domain);
            }
        }
        let required = other
            .neighbours
            .near
            .iter()
            .map(|term| (REQUIRED_WEIGHT, term));
        let preferred = other
            .neighbours
            .preferred
            .iter()
            .map(|(weight, term)| (*weight, term));
        for (weight, term) in required.chain(preferred) {
            if let Some(domain) = domain(node, term)
                && term.matches(self.pod, cluster)
            {
                *self.weights.entry(domain).or_default() += weight;
            }
        }
    }

    /// What the newcomer says about a placed pod.
    fn look_at(&mut self, node: &'a Node, other: &Pod, cluster: &Cluster) {
        let pod = self.pod;
        for (term, domains) in pod.neighbours.near.iter().zip(&mut self.near) {
            if let Some((_, value)) = domain(node, term)
                && term.matches(other, cluster)
            {
                domains.insert(value);
            }
        }
        for term in &pod.neighbours.far {
            if let Some(domain) = domain(node, term)
                && term.matches(other, cluster)
            {
                self.far.insert(domain);
            }
        }
        for (weight, term) in &pod.neighbours.preferred {
            if let Some(domain) = domain(node, term)
                && term.matches(other, cluster)
            {
                *self.weights.entry(domain).or_default() += weight;
            }
        }
    }

    pub(crate) fn permits(&self, node: &Node) -> Result<(), Unneighbourly> {
        let labels = &node.facts.labels;
        let is_in = |(key, value): &Domain<'_>| labels.get(*key).is_some_and(|own| own == value);
        for (term, domains) in self.pod.neighbours.near.iter().zip(&self.near) {
            let near = match labels.get(&term.topology_key) {
                None => false,
                Some(value) => domains.contains(value.as_str()) || self.first_of_kind,
            };
            if !near {
                return Err(Unneighbourly::Affinity);
            }
        }
        if self.far.iter().any(is_in) {
            return Err(Unneighbourly::AntiAffinity);
        }
        if self.refused.iter().any(is_in) {
            return Err(Unneighbourly::RefusedByOthers);
        }
        Ok(())
    }

    /// How welcome the pod is on the node; `None` where nobody cares. More is better.
    pub(crate) fn welcome(&self, node: &Node) -> Option<i64> {
        if self.weights.is_empty() {
            return None;
        }
        let labels = &node.facts.labels;
        let here = self
            .weights
            .iter()
            .filter(|((key, value), _)| labels.get(*key).is_some_and(|own| own == value));
        Some(here.map(|(_, weight)| weight).sum())
    }
}

fn domain<'a>(node: &'a Node, term: &'a Term) -> Option<Domain<'a>> {
    node.facts
        .labels
        .get_key_value(&term.topology_key)
        .map(|(key, value)| (key.as_str(), value.as_str()))
}
