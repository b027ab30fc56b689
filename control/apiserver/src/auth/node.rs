//! What a node agent may do: read the Secrets and ConfigMaps of its own pods, and change only its own Node, pods and Lease.
//! As Kubernetes' node authorizer and NodeRestriction, so that a stolen node key opens one node and not the cluster.

use serde_json::Value;

use super::live::Live;
use super::rbac::Rule;
use super::{Attributes, NODE_PREFIX, NODES, User};

/// Namespace of the nodes' Leases.
const LEASES: &str = "kube-node-lease";

/// The node that this user is.
pub(super) fn name_of(user: &User) -> Option<&str> {
    let name = user.name.strip_prefix(NODE_PREFIX)?;
    (user.in_group(NODES) && !name.is_empty()).then_some(name)
}

/// May the node do this? `rules` are those that every node has; what depends on its pods is decided here first.
pub(super) fn authorize(
    node: &str,
    what: &Attributes<'_>,
    live: &Live,
    rules: &[Rule],
) -> Result<(), &'static str> {
    if let Attributes::Resource {
        verb,
        group,
        resource,
        subresource,
        namespace,
        name,
    } = *what
    {
        match (group, resource, subresource) {
            ("", "secrets" | "configmaps", "") => {
                return read_of_own_pods(node, verb, resource, namespace, name, live);
            }
            ("", "serviceaccounts", "token") => {
                return token_of_own_pods(node, verb, namespace, name, live);
            }
            ("coordination.k8s.io", "leases", "") => {
                return own_lease(node, verb, namespace, name);
            }
            _ => {}
        }
    }
    if rules.iter().any(|rule| rule.allows(what)) {
        Ok(())
    } else {
        Err("nodes may not do this")
    }
}

fn read_of_own_pods(
    node: &str,
    verb: &str,
    resource: &str,
    namespace: &str,
    name: &str,
    live: &Live,
) -> Result<(), &'static str> {
    if !matches!(verb, "get" | "list" | "watch") {
        return Err("nodes may only read objects of this kind");
    }
    if name.is_empty() {
        return Err("nodes may only read objects of this kind one by one, by name");
    }
    let refers = live.pods_of(node, namespace).any(|pod| {
        let names = match resource {
            "secrets" => &pod.secrets,
            _ => &pod.config_maps,
        };
        names.contains(name)
    });
    if refers {
        Ok(())
    } else {
        Err("no pod on this node refers to this object")
    }
}

fn token_of_own_pods(
    node: &str,
    verb: &str,
    namespace: &str,
    name: &str,
    live: &Live,
) -> Result<(), &'static str> {
    let runs = live
        .pods_of(node, namespace)
        .any(|pod| *pod.service_account == *name);
    match verb {
        "create" if runs => Ok(()),
        "create" => Err("no pod on this node runs as this service account"),
        _ => Err("nodes may only create tokens"),
    }
}

fn own_lease(node: &str, verb: &str, namespace: &str, name: &str) -> Result<(), &'static str> {
    let verb_fits = matches!(verb, "get" | "create" | "update" | "patch" | "delete");
    // The name of an object to create is not in the URL: admission looks at the object.
    let name_fits = name == node || verb == "create" && name.is_empty();
    if namespace == LEASES && verb_fits && name_fits {
        Ok(())
    } else {
        Err("nodes may only use their own Lease")
    }
}

/// A write by a node, as admission sees it.
pub(super) struct NodeWrite<'a> {
    pub(super) node: &'a str,
    pub(super) verb: &'a str,
    pub(super) subresource: &'a str,
    pub(super) namespace: &'a str,
    pub(super) name: &'a str,
    pub(super) old: Option<&'a Value>,
    pub(super) new: Option<&'a Value>,
}

impl NodeWrite<'_> {
    /// NodeRestriction; the error completes "… is forbidden: ".
    pub(super) fn admit(
        &self,
        group: &str,
        resource: &str,
        live: &Live,
    ) -> Result<(), &'static str> {
        match (group, resource) {
            ("", "nodes") => self.admit_node(),
            ("", "pods") => self.admit_pod(live),
            ("coordination.k8s.io", "leases") => {
                own_lease(self.node, self.verb, self.namespace, self.name)
            }
            _ => Ok(()),
        }
    }

    fn admit_node(&self) -> Result<(), &'static str> {
        if self.name != self.node {
            return Err("a node may only change its own Node");
        }
        let Some(new) = self.new else {
            return Err("a node may not delete its Node");
        };
        let Some(old) = self.old else {
            return changed_labels(&Value::Null, &new["metadata"]["labels"])
                .all(|label| !label.contains("node-restriction.kubernetes.io/"))
                .then_some(())
                .ok_or("labels of node-restriction.kubernetes.io are not the node's to set");
        };
        if old["spec"]["taints"] != new["spec"]["taints"] {
            return Err("a node may not change its taints");
        }
        if old["metadata"]["ownerReferences"] != new["metadata"]["ownerReferences"] {
            return Err("a node may not change its owner references");
        }
        changed_labels(&old["metadata"]["labels"], &new["metadata"]["labels"])
            .all(may_change)
            .then_some(())
            .ok_or("a node may not change these labels of its Node")
    }

    fn admit_pod(&self, live: &Live) -> Result<(), &'static str> {
        let stored = live.pod(self.namespace, self.name);
        let own = stored.is_some_and(|pod| *pod.node == *self.node);
        match (self.verb, self.subresource) {
            ("create", "") => {
                let new = self.new.unwrap_or(&Value::Null);
                let mirror = &new["metadata"]["annotations"]["kubernetes.io/config.mirror"];
                if mirror.is_string() && new["spec"]["nodeName"].as_str() == Some(self.node) {
                    Ok(())
                } else {
                    Err("a node may only create mirrors of its static pods")
                }
            }
            ("create", "eviction") | ("delete", "") if own => Ok(()),
            ("update" | "patch", "status") if own => {
                let labels = |object: Option<&Value>| {
                    object.map(|object| object["metadata"]["labels"].clone())
                };
                if labels(self.old) == labels(self.new) {
                    Ok(())
                } else {
                    Err("a node may not change labels with the status of a pod")
                }
            }
            _ if own => Err("a node may only change the status of its pods, and delete them"),
            _ => Err("a node may only change pods that are bound to it"),
        }
    }
}

/// Keys whose values differ between two `metadata.labels`.
fn changed_labels<'a>(old: &'a Value, new: &'a Value) -> impl Iterator<Item = &'a str> {
    let keys = |labels: &'a Value| labels.as_object().into_iter().flat_map(|map| map.keys());
    let differs = move |key: &&str| old.get(*key) != new.get(*key);
    keys(old)
        .chain(keys(new))
        .map(String::as_str)
        .filter(differs)
}

/// Labels outside kubernetes.io, and those inside that agents set by convention.
fn may_change(label: &str) -> bool {
    const OWN: [&str; 9] = [
        "kubernetes.io/hostname",
        "kubernetes.io/arch",
        "kubernetes.io/os",
        "topology.kubernetes.io/region",
        "topology.kubernetes.io/zone",
        "node.kubernetes.io/instance-type",
        "beta.kubernetes.io/arch",
        "beta.kubernetes.io/os",
        "beta.kubernetes.io/instance-type",
    ];
    let Some((domain, _)) = label.split_once('/') else {
        return true;
    };
    let within = |parent: &str| {
        domain == parent
            || domain
                .strip_suffix(parent)
                .is_some_and(|rest| rest.ends_with('.'))
    };
    let reserved = within("kubernetes.io") || within("k8s.io");
    !reserved
        || OWN.contains(&label)
        || domain == "kubelet.kubernetes.io"
        || domain == "node.kubernetes.io"
}
