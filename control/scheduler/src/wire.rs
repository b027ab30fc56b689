//! The parts of Pods and Nodes that placement reads; everything else is skipped while parsing, so that the caches of
//! a large cluster stay small.

use std::borrow::Cow;
use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Affinity, ContainerPort, PodCondition, Taint, Toleration, TopologySpreadConstraint,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::Resource;
use kube::core::{ClusterResourceScope, NamespaceResourceScope, ObjectMeta};
use serde::Deserialize;

/// A Pod as the API serves it.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Pod {
    /// Labels, owner, deletion.
    pub metadata: ObjectMeta,
    /// What it asks for.
    #[serde(default)]
    pub spec: PodSpec,
    /// Phase and conditions.
    #[serde(default)]
    pub status: PodStatus,
}

/// `spec` of a Pod.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the fields of the Kubernetes API reference")]
pub struct PodSpec {
    pub affinity: Option<Affinity>,
    pub containers: Vec<Container>,
    pub host_network: bool,
    pub init_containers: Vec<Container>,
    pub node_name: Option<String>,
    pub node_selector: BTreeMap<String, String>,
    pub overhead: BTreeMap<String, Quantity>,
    pub resources: Option<Requests>,
    pub scheduler_name: Option<String>,
    pub scheduling_gates: Vec<serde::de::IgnoredAny>,
    pub tolerations: Vec<Toleration>,
    pub topology_spread_constraints: Vec<TopologySpreadConstraint>,
}

/// A container: requests and ports.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the fields of the Kubernetes API reference")]
pub struct Container {
    pub ports: Vec<ContainerPort>,
    pub resources: Requests,
    pub restart_policy: Option<String>,
}

/// `resources` of a container or pod. Limits are not read: the API server defaults requests from them.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Requests {
    /// Amounts asked for.
    pub requests: BTreeMap<String, Quantity>,
}

/// `status` of a Pod.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the fields of the Kubernetes API reference")]
pub struct PodStatus {
    pub phase: String,
    pub conditions: Vec<PodCondition>,
}

/// A Node as the API serves it.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Node {
    /// Name and labels.
    pub metadata: ObjectMeta,
    /// Taints.
    #[serde(default)]
    pub spec: NodeSpec,
    /// Allocatable amounts.
    #[serde(default)]
    pub status: NodeStatus,
}

/// `spec` of a Node.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the fields of the Kubernetes API reference")]
pub struct NodeSpec {
    pub taints: Vec<Taint>,
    pub unschedulable: bool,
}

/// `status` of a Node.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the fields of the Kubernetes API reference")]
pub struct NodeStatus {
    pub allocatable: BTreeMap<String, Quantity>,
    pub capacity: BTreeMap<String, Quantity>,
}

macro_rules! core_v1 {
    ($kind:ident, $plural:literal, $scope:ident) => {
        impl Resource for $kind {
            type DynamicType = ();
            type Scope = $scope;

            fn kind(_: &()) -> Cow<'_, str> {
                stringify!($kind).into()
            }
            fn group(_: &()) -> Cow<'_, str> {
                "".into()
            }
            fn version(_: &()) -> Cow<'_, str> {
                "v1".into()
            }
            fn plural(_: &()) -> Cow<'_, str> {
                $plural.into()
            }
            fn meta(&self) -> &ObjectMeta {
                &self.metadata
            }
            fn meta_mut(&mut self) -> &mut ObjectMeta {
                &mut self.metadata
            }
        }
    };
}

core_v1!(Pod, "pods", NamespaceResourceScope);
core_v1!(Node, "nodes", ClusterResourceScope);
