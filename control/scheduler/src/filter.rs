//! Which nodes can take a pod, and why the others cannot.

use std::fmt;

use k8s_openapi::api::core::v1::{Taint, Toleration};

use crate::cluster::Node;
use crate::neighbours::{Neighbourhood, Unneighbourly};
use crate::pod::Pod;
use crate::spread::{Spread, Uneven};

/// Why a node cannot take a pod, in the words of kube-scheduler.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// The node is cordoned.
    Unschedulable,
    /// A taint that the pod does not tolerate.
    Taint {
        /// Key of the taint.
        key: String,
        /// Its value, often empty.
        value: String,
    },
    /// Node selector or node affinity.
    NodeAffinity,
    /// A host port is taken.
    Ports,
    /// Too little left of a resource.
    Insufficient(String),
    /// The node has as many pods as it can have.
    TooManyPods,
    /// Topology spread: the node is in no domain.
    SpreadLabel,
    /// Topology spread: too uneven.
    Spread,
    /// The pod's own affinity.
    PodAffinity,
    /// The pod's own anti-affinity.
    PodAntiAffinity,
    /// The anti-affinity of a pod that is already there.
    OthersAntiAffinity,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unschedulable => f.write_str("node(s) were unschedulable"),
            Self::Taint { key, value } => {
                write!(f, "node(s) had untolerated taint {{{key}: {value}}}")
            }
            Self::NodeAffinity => f.write_str("node(s) didn't match Pod's node affinity/selector"),
            Self::Ports => {
                f.write_str("node(s) didn't have free ports for the requested pod ports")
            }
            Self::Insufficient(resource) => write!(f, "Insufficient {resource}"),
            Self::TooManyPods => f.write_str("Too many pods"),
            Self::SpreadLabel => f.write_str(
                "node(s) didn't match pod topology spread constraints (missing required label)",
            ),
            Self::Spread => f.write_str("node(s) didn't match pod topology spread constraints"),
            Self::PodAffinity => f.write_str("node(s) didn't match pod affinity rules"),
            Self::PodAntiAffinity => f.write_str("node(s) didn't match pod anti-affinity rules"),
            Self::OthersAntiAffinity => {
                f.write_str("node(s) didn't satisfy existing pods anti-affinity rules")
            }
        }
    }
}

/// Whether the node by itself can take the pod: everything that does not depend on other nodes. Empty when it can.
pub(crate) fn refusals_alone(pod: &Pod, node: &Node) -> Vec<Refusal> {
    let facts = &node.facts;
    if facts.unschedulable && !tolerates_unschedulable(pod) {
        return vec![Refusal::Unschedulable];
    }
    if let Some(taint) = facts
        .taints
        .iter()
        .find(|taint| keeps_away(taint) && !tolerates(pod, taint))
    {
        return vec![Refusal::Taint {
            key: taint.key.clone(),
            value: taint.value.clone().unwrap_or_default(),
        }];
    }
    if !pod.nodes.accepts(&facts.name, &facts.labels) {
        return vec![Refusal::NodeAffinity];
    }
    let taken = || node.pods.values().flat_map(|other| &other.ports);
    if pod
        .ports
        .iter()
        .any(|port| taken().any(|other| other.conflicts(port)))
    {
        return vec![Refusal::Ports];
    }
    lacking(pod, node)
}

/// All reasons against the node; empty when it can take the pod.
pub(crate) fn refusals(
    pod: &Pod,
    node: &Node,
    spread: &Spread<'_>,
    around: &Neighbourhood<'_>,
) -> Vec<Refusal> {
    let alone = refusals_alone(pod, node);
    if !alone.is_empty() {
        return alone;
    }
    match spread.permits(node) {
        Err(Uneven::MissingLabel) => return vec![Refusal::SpreadLabel],
        Err(Uneven::Skew) => return vec![Refusal::Spread],
        Ok(()) => {}
    }
    match around.permits(node) {
        Err(Unneighbourly::Affinity) => vec![Refusal::PodAffinity],
        Err(Unneighbourly::AntiAffinity) => vec![Refusal::PodAntiAffinity],
        Err(Unneighbourly::RefusedByOthers) => vec![Refusal::OthersAntiAffinity],
        Ok(()) => Vec::new(),
    }
}

/// Every resource that the node has too little of.
fn lacking(pod: &Pod, node: &Node) -> Vec<Refusal> {
    let (asked, used, offered) = (&pod.requests, &node.used, &node.facts.allocatable);
    let short =
        |asked: i64, used: i64, offered: i64| asked > 0 && asked > offered.saturating_sub(used);
    let mut refusals = Vec::new();
    if i64::try_from(node.pods.len()).unwrap_or(i64::MAX) >= node.facts.pods_max {
        refusals.push(Refusal::TooManyPods);
    }
    if short(asked.cpu_milli, used.cpu_milli, offered.cpu_milli) {
        refusals.push(Refusal::Insufficient("cpu".to_owned()));
    }
    if short(asked.memory_bytes, used.memory_bytes, offered.memory_bytes) {
        refusals.push(Refusal::Insufficient("memory".to_owned()));
    }
    for (name, amount) in &asked.others {
        let amount_of = |resources: &crate::resources::Resources| {
            resources.others.get(name).copied().unwrap_or(0)
        };
        if short(*amount, amount_of(used), amount_of(offered)) {
            refusals.push(Refusal::Insufficient(name.clone()));
        }
    }
    refusals
}

fn keeps_away(taint: &Taint) -> bool {
    matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute")
}

/// Whether a taint's effect is only a preference against the node, and the pod does not tolerate it.
pub(crate) fn is_put_off(pod: &Pod, taint: &Taint) -> bool {
    taint.effect == "PreferNoSchedule" && !tolerates(pod, taint)
}

/// Whether no taint keeps the pod away.
pub(crate) fn tolerates_all(pod: &Pod, taints: &[Taint]) -> bool {
    taints
        .iter()
        .all(|taint| !keeps_away(taint) || tolerates(pod, taint))
}

fn tolerates(pod: &Pod, taint: &Taint) -> bool {
    let value = taint.value.as_deref().unwrap_or_default();
    pod.tolerations
        .iter()
        .any(|toleration| accepts(toleration, &taint.key, value, &taint.effect))
}

fn tolerates_unschedulable(pod: &Pod) -> bool {
    pod.tolerations.iter().any(|toleration| {
        accepts(
            toleration,
            "node.kubernetes.io/unschedulable",
            "",
            "NoSchedule",
        )
    })
}

fn accepts(toleration: &Toleration, key: &str, value: &str, effect: &str) -> bool {
    let same =
        |own: Option<&str>, other: &str| own.is_none_or(|own| own.is_empty() || own == other);
    same(toleration.effect.as_deref(), effect)
        && same(toleration.key.as_deref(), key)
        && match toleration.operator.as_deref() {
            Some("Exists") => true,
            None | Some("" | "Equal") => {
                toleration.key.as_deref().is_some_and(|key| !key.is_empty())
                    && toleration.value.as_deref().unwrap_or_default() == value
            }
            Some(_) => false,
        }
}
