//! What a node's conditions and silence mean: conditions when it is lost, taints always.

use k8s_openapi::api::core::v1::Taint;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use crate::conditions::whole_seconds;
use crate::objects::{Node, condition};

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// Conditions that keep new pods away while they are True, and their taints.
const PRESSURES: [(&str, &str); 4] = [
    ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "node.kubernetes.io/pid-pressure"),
    (
        "NetworkUnavailable",
        "node.kubernetes.io/network-unavailable",
    ),
];

/// Whether the node says, or we say of it, that it is not ready.
pub(super) fn is_unready(node: &Node) -> bool {
    condition(&node.status.conditions, "Ready").is_some_and(|ready| ready.status != "True")
}

/// Conditions of a node that has gone silent; nothing if they say so already.
pub(super) fn lost(node: &Node, now: Timestamp) -> Option<Value> {
    let known = &node.status.conditions;
    let types = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];
    let changed: Vec<Value> = types
        .into_iter()
        .filter_map(|type_| {
            let (reason, message) = match condition(known, type_) {
                Some(known) if known.status == "Unknown" => return None,
                Some(_) => ("NodeStatusUnknown", "Kubelet stopped posting node status."),
                None => (
                    "NodeStatusNeverUpdated",
                    "Kubelet never posted node status.",
                ),
            };
            Some(json!({
                "type": type_, "status": "Unknown", "reason": reason, "message": message,
                "lastTransitionTime": whole_seconds(now),
            }))
        })
        .collect();
    (!changed.is_empty()).then(|| json!(changed))
}

/// The taints that the node should have, if it has others. `silent` is true of a node that has just been declared
/// lost, whose condition may not be visible yet.
pub(super) fn taints(node: &Node, silent: bool, now: Timestamp) -> Option<Vec<Taint>> {
    let ready = condition(&node.status.conditions, "Ready").map(|ready| ready.status.as_str());
    let mut wanted: Vec<(&str, &str)> = Vec::new();
    match ready {
        _ if silent => wanted.extend([(UNREACHABLE, "NoSchedule"), (UNREACHABLE, "NoExecute")]),
        Some("Unknown") => wanted.extend([(UNREACHABLE, "NoSchedule"), (UNREACHABLE, "NoExecute")]),
        Some("False") => wanted.extend([(NOT_READY, "NoSchedule"), (NOT_READY, "NoExecute")]),
        Some(_) => {}
        // It has never said anything: nothing may go there, but nothing has to leave either.
        None => wanted.push((NOT_READY, "NoSchedule")),
    }
    for (type_, key) in PRESSURES {
        if condition(&node.status.conditions, type_)
            .is_some_and(|condition| condition.status == "True")
        {
            wanted.push((key, "NoSchedule"));
        }
    }
    if node.spec.unschedulable {
        wanted.push((UNSCHEDULABLE, "NoSchedule"));
    }
    let is_managed = |taint: &Taint| {
        [NOT_READY, UNREACHABLE, UNSCHEDULABLE].contains(&taint.key.as_str())
            || PRESSURES.iter().any(|(_, key)| *key == taint.key)
    };
    let is_wanted = |taint: &Taint| wanted.contains(&(taint.key.as_str(), taint.effect.as_str()));
    let mut taints: Vec<Taint> = node
        .spec
        .taints
        .iter()
        .filter(|taint| !is_managed(taint) || is_wanted(taint))
        .cloned()
        .collect();
    let kept = taints.len();
    for (key, effect) in wanted {
        if !taints
            .iter()
            .any(|taint| taint.key == key && taint.effect == effect)
        {
            taints.push(Taint {
                key: key.to_owned(),
                effect: effect.to_owned(),
                time_added: Some(whole_seconds(now)),
                value: None,
            });
        }
    }
    (kept != node.spec.taints.len() || taints.len() != kept).then_some(taints)
}

/// Strategic merge patch of a pod's status.
pub(super) fn pod_not_ready(now: Timestamp) -> Value {
    json!({"status": {"conditions": [{
        "type": "Ready", "status": "False", "reason": "NodeNotReady", "lastTransitionTime": whole_seconds(now),
    }]}})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().expect("a time")
    }

    /// Conditions as `Ready=True`, taints as `key:Effect`, `cordoned`, `silent`; the answer lists all taints, short.
    fn check(node: &str, expected: Option<&str>) {
        let mut wire = json!({"metadata": {"name": "n"}, "spec": {"taints": []}, "status": {"conditions": []}});
        for word in node.split_whitespace() {
            if let Some((type_, status)) = word.split_once('=') {
                let all = wire["status"]["conditions"].as_array_mut().expect("a list");
                all.push(json!({"type": type_, "status": status}));
            } else if let Some((key, effect)) = word.split_once(':') {
                let key = if key.contains('/') {
                    key.to_owned()
                } else {
                    format!("node.kubernetes.io/{key}")
                };
                wire["spec"]["taints"]
                    .as_array_mut()
                    .expect("a list")
                    .push(json!({"key": key, "effect": effect}));
            } else if word == "cordoned" {
                wire["spec"]["unschedulable"] = json!(true);
            }
        }
        let parsed: Node = serde_json::from_value(wire).expect("a node");
        let shown = taints(&parsed, node.contains("silent"), now()).map(|taints| {
            let short = |taint: &Taint| {
                format!(
                    "{}:{}",
                    taint.key.trim_start_matches("node.kubernetes.io/"),
                    taint.effect
                )
            };
            taints.iter().map(short).collect::<Vec<_>>().join(" ")
        });
        assert_eq!(shown.as_deref(), expected, "{node}");
    }

    #[test]
    fn taints_follow_conditions() {
        check("Ready=True", None);
        check("Ready=True not-ready:NoSchedule", Some(""));
        check("", Some("not-ready:NoSchedule"));
        check(
            "Ready=False",
            Some("not-ready:NoSchedule not-ready:NoExecute"),
        );
        check(
            "Ready=Unknown",
            Some("unreachable:NoSchedule unreachable:NoExecute"),
        );
        check(
            "Ready=Unknown unreachable:NoSchedule unreachable:NoExecute",
            None,
        );
        check(
            "Ready=True silent",
            Some("unreachable:NoSchedule unreachable:NoExecute"),
        );
        check(
            "Ready=True a.test/x:NoExecute not-ready:NoExecute",
            Some("a.test/x:NoExecute"),
        );
        check(
            "Ready=True cordoned MemoryPressure=True",
            Some("memory-pressure:NoSchedule unschedulable:NoSchedule"),
        );
        check("Ready=True unschedulable:NoSchedule", Some(""));
    }

    #[test]
    fn lost_nodes_say_so_once() {
        let ready = json!({"metadata": {}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        let ready: Node = serde_json::from_value(ready).expect("a node");
        assert_eq!(
            lost(&ready, now()).expect("changes")[0]["reason"],
            "NodeStatusUnknown"
        );
        assert_eq!(
            lost(&Node::default(), now()).expect("changes")[0]["reason"],
            "NodeStatusNeverUpdated"
        );
        let types = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];
        let all: Vec<Value> = types
            .into_iter()
            .map(|t| json!({"type": t, "status": "Unknown"}))
            .collect();
        let gone: Node =
            serde_json::from_value(json!({"metadata": {}, "status": {"conditions": all}}))
                .expect("a node");
        assert!(lost(&gone, now()).is_none());
    }
}
