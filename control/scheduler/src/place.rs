//! The decision: which node a pod goes to, or why it can go nowhere. Pure and deterministic.

use std::collections::BTreeMap;
use std::fmt;

use crate::cluster::{Cluster, Node};
use crate::filter::{Refusal, refusals, refusals_alone};
use crate::neighbours::Neighbourhood;
use crate::pod::Pod;
use crate::score::{best, score};
use crate::spread::Spread;

/// What makes a node better than another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Strategy {
    /// Least used first, pods of one owner apart.
    #[default]
    Spread,
    /// Most used first, so that nodes stay empty for large pods or can go.
    BinPack,
}

/// Where a pod goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// Name of the node.
    pub node: String,
    /// Weighted points that it got.
    pub points: i64,
}

/// Why a pod can go nowhere: how many nodes refuse it for which reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unplaced {
    /// Nodes in the cluster.
    pub nodes: usize,
    /// Nodes by reason; one node may have several.
    pub refusals: BTreeMap<Refusal, usize>,
}

impl fmt::Display for Unplaced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nodes == 0 {
            return f.write_str("no nodes available to schedule pods");
        }
        let mut reasons: Vec<String> = self
            .refusals
            .iter()
            .map(|(why, nodes)| format!("{nodes} {why}"))
            .collect();
        reasons.sort();
        write!(
            f,
            "0/{} nodes are available: {}.",
            self.nodes,
            reasons.join(", ")
        )
    }
}

impl std::error::Error for Unplaced {}

/// Places a pod.
pub fn place(pod: &Pod, cluster: &Cluster, strategy: Strategy) -> Result<Placement, Unplaced> {
    let spread = Spread::count(pod, cluster);
    let around = Neighbourhood::survey(pod, cluster);
    let mut feasible: Vec<&Node> = Vec::new();
    let mut counted: BTreeMap<Refusal, usize> = BTreeMap::new();
    for node in cluster.nodes() {
        let refusals = refusals(pod, node, &spread, &around);
        if refusals.is_empty() {
            feasible.push(node);
        }
        for refusal in refusals {
            *counted.entry(refusal).or_default() += 1;
        }
    }
    let points = score(pod, &feasible, strategy, &spread, &around);
    match best(&feasible, &points) {
        Some((node, points)) => Ok(Placement {
            node: node.facts.name.clone(),
            points,
        }),
        None => Err(Unplaced {
            nodes: cluster.nodes().len(),
            refusals: counted,
        }),
    }
}

/// Whether a change of `node` may let an unplaced pod in: by itself the node could take it. Rules between nodes are
/// left to [`place`].
pub(crate) fn may_help(pod: &Pod, node: &Node) -> bool {
    refusals_alone(pod, node).is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::NodeFacts;
    use crate::wire;
    use serde_json::{Value, json};
    use std::sync::Arc;

    /// `n1 cpu=4 memory=8Gi pods=10 zone=a taint=key:value:NoSchedule cordoned`; other words are labels.
    fn node(text: &str) -> NodeFacts {
        let mut words = text.split_whitespace();
        let mut node = json!({
            "metadata": {"name": words.next().expect("a name"), "labels": {}},
            "spec": {"taints": []},
            "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110"}},
        });
        for word in words {
            match word.split_once('=') {
                None => node["spec"]["unschedulable"] = json!(word == "cordoned"),
                Some(("taint", taint)) => {
                    let parts: Vec<&str> = taint.split(':').collect();
                    let taint = json!({"key": parts[0], "value": parts[1], "effect": parts[2]});
                    node["spec"]["taints"]
                        .as_array_mut()
                        .expect("a list")
                        .push(taint);
                }
                Some((resource @ ("cpu" | "memory" | "pods" | "gpu"), amount)) => {
                    node["status"]["allocatable"][resource] = json!(amount);
                }
                Some((label, value)) => node["metadata"]["labels"][label] = json!(value),
            }
        }
        let wire: wire::Node = serde_json::from_value(node).expect("a node");
        NodeFacts::try_from(&wire).expect("valid")
    }

    /// `name cpu=1 memory=1Gi owner=web port=80 tolerate=key`; other words are labels. `spec` is laid over it.
    fn pod(text: &str, spec: Value) -> Pod {
        let mut words = text.split_whitespace();
        let name = words.next().expect("a name");
        let mut pod = json!({
            "metadata": {"name": name, "namespace": "d", "uid": name, "labels": {}},
            "spec": {"containers": [{"resources": {"requests": {}}, "ports": []}], "tolerations": []},
        });
        for word in words {
            let (key, value) = word.split_once('=').expect("key=value");
            let container = &mut pod["spec"]["containers"][0];
            match key {
                "cpu" | "memory" | "gpu" => container["resources"]["requests"][key] = json!(value),
                "port" => {
                    let port: i32 = value.parse().expect("a port");
                    container["ports"] = json!([{"containerPort": port, "hostPort": port}]);
                }
                "tolerate" => {
                    pod["spec"]["tolerations"] = json!([{"key": value, "operator": "Exists"}])
                }
                "owner" => {
                    let owner = json!({"apiVersion": "v1", "kind": "X", "name": value, "uid": value, "controller": true});
                    pod["metadata"]["ownerReferences"] = json!([owner]);
                }
                _ => pod["metadata"]["labels"][key] = json!(value),
            }
        }
        for (key, value) in spec.as_object().into_iter().flatten() {
            pod["spec"][key] = value.clone();
        }
        let wire: wire::Pod = serde_json::from_value(pod).expect("a pod");
        Pod::try_from(&wire).expect("valid")
    }

    /// Placed pods are `node name words…`.
    fn cluster(nodes: &[&str], placed: &[&str]) -> Cluster {
        let mut cluster = Cluster::default();
        for text in nodes {
            cluster.set_node(node(text));
        }
        for text in placed {
            let (on, rest) = text.split_once(' ').expect("node and pod");
            cluster.set_pod(on, Arc::new(pod(rest, json!({}))));
        }
        cluster
    }

    fn outcome(pod: &Pod, cluster: &Cluster, strategy: Strategy) -> String {
        match place(pod, cluster, strategy) {
            Ok(placement) => placement.node,
            Err(unplaced) => unplaced.to_string(),
        }
    }

    fn check(nodes: &[&str], placed: &[&str], wanted: &str, expected: &str) {
        check_spec(nodes, placed, wanted, json!({}), expected);
    }

    fn check_spec(nodes: &[&str], placed: &[&str], wanted: &str, spec: Value, expected: &str) {
        let cluster = cluster(nodes, placed);
        assert_eq!(
            outcome(&pod(wanted, spec), &cluster, Strategy::Spread),
            expected,
            "{wanted} on {nodes:?}"
        );
    }

    #[test]
    fn resources_and_their_explanations() {
        check(&[], &[], "p", "no nodes available to schedule pods");
        check(&["n1"], &[], "p cpu=4", "n1");
        check(
            &["n1"],
            &["n1 a cpu=1m"],
            "p cpu=4",
            "0/1 nodes are available: 1 Insufficient cpu.",
        );
        check(
            &["n1", "n2 cpu=1"],
            &[],
            "p cpu=5 memory=9Gi",
            "0/2 nodes are available: 2 Insufficient cpu, 2 Insufficient memory.",
        );
        check(
            &["n1 pods=1"],
            &["n1 a"],
            "p",
            "0/1 nodes are available: 1 Too many pods.",
        );
        check(&["n1 gpu=2"], &["n1 a gpu=1"], "p gpu=1", "n1");
        check(
            &["n1 gpu=2"],
            &["n1 a gpu=1"],
            "p gpu=2",
            "0/1 nodes are available: 1 Insufficient gpu.",
        );
        check(
            &["n1"],
            &[],
            "p gpu=1",
            "0/1 nodes are available: 1 Insufficient gpu.",
        );
        // Overcommitted nodes still take what asks for nothing.
        check(&["n1 cpu=1"], &["n1 a cpu=2"], "p", "n1");
    }

    #[test]
    fn taints_cordons_and_ports() {
        let tainted = ["n1 taint=team:a:NoSchedule", "n2 cordoned"];
        check(
            &tainted,
            &[],
            "p",
            "0/2 nodes are available: 1 node(s) had untolerated taint {team: a}, 1 node(s) were unschedulable.",
        );
        check(&tainted, &[], "p tolerate=team", "n1");
        check(
            &tainted,
            &[],
            "p tolerate=node.kubernetes.io/unschedulable",
            "n2",
        );
        check(
            &["n1 taint=a:b:PreferNoSchedule", "n2"],
            &["n2 a cpu=1", "n2 b cpu=1"],
            "p",
            "n2",
        );
        check(&["n1"], &["n1 a port=80"], "p port=81", "n1");
        check(
            &["n1"],
            &["n1 a port=80"],
            "p port=80",
            "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports.",
        );
    }

    #[test]
    fn wanted_nodes() {
        let nodes = ["n1 disk=hdd", "n2 disk=ssd"];
        check_spec(
            &nodes,
            &[],
            "p",
            json!({"nodeSelector": {"disk": "ssd"}}),
            "n2",
        );
        check_spec(
            &nodes,
            &[],
            "p",
            json!({"nodeSelector": {"disk": "nvme"}}),
            "0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector.",
        );
        let preferred = json!({"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
            {"weight": 10, "preference": {"matchExpressions": [{"key": "disk", "operator": "In", "values": ["ssd"]}]}}
        ]}}});
        check_spec(&nodes, &["n2 a cpu=1"], "p", preferred, "n2");
    }

    #[test]
    fn spreads_by_default_and_packs_on_request() {
        check(&["n1", "n2"], &["n1 a cpu=1"], "p cpu=1", "n2");
        check(&["n1", "n2"], &["n1 a owner=web"], "p owner=web", "n2");
        check(&["n1", "n2"], &[], "p", "n1");
        let cluster = cluster(&["n1", "n2"], &["n2 a cpu=1 memory=1Gi owner=web"]);
        assert_eq!(
            outcome(
                &pod("p cpu=1 memory=1Gi owner=web", json!({})),
                &cluster,
                Strategy::BinPack
            ),
            "n2"
        );
    }

    fn spread(when: &str) -> Value {
        json!({"topologySpreadConstraints": [{
            "maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": when,
            "labelSelector": {"matchLabels": {"app": "web"}},
        }]})
    }

    #[test]
    fn topology_spread() {
        let nodes = ["n1 zone=a", "n2 zone=b cpu=1", "n3"];
        let placed = ["n1 a app=web", "n2 b cpu=1"];
        check_spec(
            &nodes,
            &placed,
            "p app=web cpu=1",
            spread("DoNotSchedule"),
            "0/3 nodes are available: 1 Insufficient cpu, 1 node(s) didn't match pod topology spread constraints, \
             1 node(s) didn't match pod topology spread constraints (missing required label).",
        );
        check_spec(&nodes, &placed, "p app=web", spread("DoNotSchedule"), "n2");
        check_spec(
            &nodes,
            &placed,
            "p app=other",
            spread("DoNotSchedule"),
            "n1",
        );
        check_spec(
            &["n1 zone=a", "n2 zone=b"],
            &["n1 a app=web"],
            "p app=web",
            spread("ScheduleAnyway"),
            "n2",
        );
    }

    fn neighbours(kind: &str, app: &str, key: &str) -> Value {
        let term = json!({"topologyKey": key, "labelSelector": {"matchLabels": {"app": app}}});
        json!({"affinity": {kind: {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}})
    }

    #[test]
    fn neighbours_near_and_far() {
        let nodes = ["n1 zone=a", "n2 zone=a", "n3 zone=b"];
        let host = "kubernetes.io/hostname";
        check_spec(
            &nodes,
            &["n3 a app=db"],
            "p",
            neighbours("podAffinity", "db", "zone"),
            "n3",
        );
        check_spec(
            &nodes,
            &[],
            "p",
            neighbours("podAffinity", "db", "zone"),
            "0/3 nodes are available: 3 node(s) didn't match pod affinity rules.",
        );
        // The first of its kind may go anywhere.
        check_spec(
            &nodes,
            &[],
            "p app=db",
            neighbours("podAffinity", "db", "zone"),
            "n1",
        );
        check_spec(
            &nodes,
            &["n1 a app=db"],
            "p",
            neighbours("podAntiAffinity", "db", "zone"),
            "n3",
        );
        check_spec(
            &nodes,
            &["n1 a app=db", "n2 b", "n2 c", "n3 d"],
            "p",
            neighbours("podAntiAffinity", "db", host),
            "n3",
        );
        let mut cluster = cluster(&["n1"], &[]);
        cluster.set_pod(
            "n1",
            Arc::new(pod("a", neighbours("podAntiAffinity", "web", host))),
        );
        let explained =
            "0/1 nodes are available: 1 node(s) didn't satisfy existing pods anti-affinity rules."
                .to_owned();
        assert_eq!(
            outcome(&pod("p app=web", json!({})), &cluster, Strategy::Spread),
            explained
        );
    }

    /// Whatever happens, what a node counts as used is what its pods ask for.
    #[test]
    fn books_balance() {
        let mut cluster = cluster(&["n1 cpu=4", "n2 cpu=4"], &[]);
        let pods: Vec<Arc<Pod>> = (0..8)
            .map(|i| Arc::new(pod(&format!("p{i} cpu={}00m gpu=1", i + 1), json!({}))))
            .collect();
        for (step, pod) in pods.iter().cycle().take(64).enumerate() {
            match step % 5 {
                0 | 1 => cluster.set_pod("n1", Arc::clone(pod)),
                2 => cluster.set_pod("n2", Arc::clone(pod)),
                3 => {
                    cluster.remove_pod(&pod.uid);
                }
                _ => {
                    cluster.remove_node("n2");
                    cluster.set_node(node("n2 cpu=4"));
                }
            }
            for node in cluster.nodes() {
                let asked: i64 = node.pods.values().map(|pod| pod.requests.cpu_milli).sum();
                assert_eq!(node.used.cpu_milli, asked, "step {step}");
                assert_eq!(
                    node.used.others.get("gpu").copied().unwrap_or(0),
                    node.pods.len() as i64
                );
            }
        }
    }
}
