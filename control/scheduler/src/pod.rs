//! A pod as placement sees it, parsed once.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Toleration;
use kube::core::ParseExpressionError;
use meshgate_api::client::{BadQuantity, Key};

use crate::affinity::{BadNodeTerm, NodeAffinity};
use crate::neighbours::{BadNeighbourTerm, Neighbours};
use crate::resources::Resources;
use crate::spread::{BadConstraint, Constraint};
use crate::wire;

/// A pod as placement sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Pod {
    /// Namespace and name.
    pub key: Key,
    /// UID.
    pub uid: String,
    /// Labels, for the selectors of other pods and of its own spread.
    pub labels: BTreeMap<String, String>,
    /// UID of the controlling owner, whose pods spread over nodes; empty without one.
    pub owner: String,
    /// What it asks for, over all phases of its life.
    pub requests: Resources,
    /// Host ports that it binds.
    pub ports: Vec<HostPort>,
    /// Taints that it accepts.
    pub tolerations: Vec<Toleration>,
    /// Which nodes it wants.
    pub nodes: NodeAffinity,
    /// How it spreads with pods alike.
    pub spread: Vec<Constraint>,
    /// Near or far from which pods it wants to be.
    pub neighbours: Neighbours,
}

/// A port on the node's own addresses.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostPort {
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// Address; empty is every one.
    pub address: String,
    /// Port.
    pub port: i32,
}

impl HostPort {
    /// Whether both cannot be bound on one node.
    pub(crate) fn conflicts(&self, other: &Self) -> bool {
        let any = |address: &str| address.is_empty() || address == "0.0.0.0";
        self.port == other.port
            && self.protocol == other.protocol
            && (self.address == other.address || any(&self.address) || any(&other.address))
    }
}

/// Why a pod cannot be read; the API server should have refused it.
#[derive(Debug, thiserror::Error)]
pub enum BadPod {
    /// A request is no quantity.
    #[error("reading the resource requests")]
    Requests(#[source] BadQuantity),
    /// A node selector term is not understood.
    #[error("reading spec.affinity.nodeAffinity")]
    NodeTerm(#[source] BadNodeTerm),
    /// A spread constraint is not understood.
    #[error("reading spec.topologySpreadConstraints")]
    Spread(#[source] BadConstraint),
    /// An affinity term is not understood.
    #[error("reading spec.affinity")]
    Neighbours(#[source] BadNeighbourTerm),
}

/// A label selector that the API server should have refused.
#[derive(Debug, thiserror::Error)]
#[error("reading a label selector")]
pub struct BadSelector(#[source] pub ParseExpressionError);

impl TryFrom<&wire::Pod> for Pod {
    type Error = BadPod;

    fn try_from(pod: &wire::Pod) -> Result<Self, BadPod> {
        let meta = &pod.metadata;
        let labels = meta.labels.clone().unwrap_or_default();
        let namespace = meta.namespace.clone().unwrap_or_default();
        let owner = meta
            .owner_references
            .iter()
            .flatten()
            .find(|owner| owner.controller == Some(true));
        let affinity = pod.spec.affinity.clone().unwrap_or_default();
        Ok(Self {
            key: Key::of(pod),
            uid: meta.uid.clone().unwrap_or_default(),
            owner: owner.map(|owner| owner.uid.clone()).unwrap_or_default(),
            requests: requests(&pod.spec).map_err(BadPod::Requests)?,
            ports: host_ports(&pod.spec),
            tolerations: pod.spec.tolerations.clone(),
            nodes: NodeAffinity::read(&pod.spec.node_selector, affinity.node_affinity.as_ref())
                .map_err(BadPod::NodeTerm)?,
            spread: Constraint::read_all(&pod.spec.topology_spread_constraints, &labels)
                .map_err(BadPod::Spread)?,
            neighbours: Neighbours::read(&affinity, &namespace, &labels)
                .map_err(BadPod::Neighbours)?,
            labels,
        })
    }
}

/// The most that the pod needs at any time of its life: its containers together with its sidecars, or one init
/// container together with the sidecars started before it, whichever is more; plus overhead. Requests of the pod as
/// a whole (KEP-2837) come before the sum of its containers'.
fn requests(spec: &wire::PodSpec) -> Result<Resources, BadQuantity> {
    let mut sidecars = Resources::default();
    let mut starting = Resources::default();
    for container in &spec.init_containers {
        let mut now = Resources::read(&container.resources.requests)?;
        if container.restart_policy.as_deref() == Some("Always") {
            sidecars.add(&now);
            starting.raise_to(&sidecars);
        } else {
            now.add(&sidecars);
            starting.raise_to(&now);
        }
    }
    let mut total = sidecars;
    for container in &spec.containers {
        total.add(&Resources::read(&container.resources.requests)?);
    }
    total.raise_to(&starting);
    if let Some(whole) = &spec.resources {
        let pod_level = Resources::read(&whole.requests)?;
        for name in whole.requests.keys() {
            match name.as_str() {
                "cpu" => total.cpu_milli = pod_level.cpu_milli,
                "memory" => total.memory_bytes = pod_level.memory_bytes,
                other => {
                    total.others.insert(
                        other.to_owned(),
                        pod_level.others.get(other).copied().unwrap_or(0),
                    );
                }
            }
        }
    }
    total.add(&Resources::read(&spec.overhead)?);
    Ok(total)
}

fn host_ports(spec: &wire::PodSpec) -> Vec<HostPort> {
    let sidecars = spec
        .init_containers
        .iter()
        .filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let ports = spec
        .containers
        .iter()
        .chain(sidecars)
        .flat_map(|container| &container.ports);
    ports
        .filter_map(|port| {
            let host_port = port
                .host_port
                .or(spec.host_network.then_some(port.container_port))?;
            Some(HostPort {
                protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
                address: port.host_ip.clone().unwrap_or_default(),
                port: host_port,
            })
        })
        .filter(|port| port.port > 0)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `containers` is YAML-like JSON of the pod's spec; the result is cpu in milli and memory in bytes.
    fn check(spec: serde_json::Value, cpu_milli: i64, memory_bytes: i64) {
        let pod: wire::Pod = serde_json::from_value(
            serde_json::json!({"metadata": {"name": "p", "namespace": "d"}, "spec": spec}),
        )
        .expect("a pod");
        let pod = Pod::try_from(&pod).expect("valid");
        assert_eq!(
            (pod.requests.cpu_milli, pod.requests.memory_bytes),
            (cpu_milli, memory_bytes),
            "{spec}"
        );
    }

    fn asks(cpu: &str, memory: &str) -> serde_json::Value {
        serde_json::json!({"resources": {"requests": {"cpu": cpu, "memory": memory}}})
    }

    fn sidecar(cpu: &str, memory: &str) -> serde_json::Value {
        let mut container = asks(cpu, memory);
        container["restartPolicy"] = "Always".into();
        container
    }

    #[test]
    fn the_most_at_any_time_counts() {
        use serde_json::json;
        check(
            json!({"containers": [asks("100m", "1Ki"), asks("200m", "2Ki")]}),
            300,
            3072,
        );
        check(
            json!({"initContainers": [asks("1", "1")], "containers": [asks("100m", "1Ki")]}),
            1000,
            1024,
        );
        check(
            json!({"initContainers": [sidecar("50m", "10")], "containers": [asks("100m", "20")]}),
            150,
            30,
        );
        // The second init container runs beside the sidecar, the first does not.
        let init = json!([asks("220m", "0"), sidecar("50m", "0"), asks("200m", "0")]);
        check(
            json!({"initContainers": init, "containers": [asks("100m", "0")]}),
            250,
            0,
        );
        check(
            json!({"containers": [asks("1", "1")], "overhead": {"cpu": "10m"}}),
            1010,
            1,
        );
        check(
            json!({"containers": [asks("1", "7")], "resources": {"requests": {"cpu": "3"}}}),
            3000,
            7,
        );
        check(json!({"containers": [{}]}), 0, 0);
    }
}
