//! The Node object as a value, made from facts.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use meshgate_api::names;
use serde_json::{Value, json};

use super::Facts;
use crate::cgroup::Limits;
use crate::images::architecture;

/// Of the kubelet whose part this plays; kubectl compares versions.
const KUBELET_VERSION: &str = concat!("v1.36.0+meshgate-", env!("CARGO_PKG_VERSION"));

/// Metadata and specification.
pub(super) fn object(facts: &Facts) -> Value {
    let arch = architecture();
    let cidr = format!("{}/{}", facts.pod_network, crate::net::PodAddress::PREFIX);
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": facts.name,
            "labels": {
                "kubernetes.io/hostname": facts.name,
                "kubernetes.io/os": "linux",
                "kubernetes.io/arch": arch,
                "beta.kubernetes.io/os": "linux",
                "beta.kubernetes.io/arch": arch,
            },
        },
        "spec": {"podCIDR": cidr, "podCIDRs": [cidr]},
    })
}

/// Whether the object says what it should; what others added does not matter.
pub(super) fn is_current(known: &Node, wanted: &Value) -> bool {
    let labels = wanted["metadata"]["labels"].as_object();
    let has = |key: &str, value: &Value| {
        let known = known
            .metadata
            .labels
            .as_ref()
            .and_then(|labels| labels.get(key));
        known.map(String::as_str) == value.as_str()
    };
    let cidr = known
        .spec
        .as_ref()
        .and_then(|spec| spec.pod_cidr.as_deref());
    labels
        .into_iter()
        .flatten()
        .all(|(key, value)| has(key, value))
        && cidr == wanted["spec"]["podCIDR"].as_str()
}

/// The status; conditions keep the time of their last change.
pub(super) fn status(facts: &Facts, known: &Node, now: Timestamp) -> Value {
    let mut conditions = vec![
        (
            "MemoryPressure",
            "False",
            "KubeletHasSufficientMemory",
            "kubelet has sufficient memory available",
        ),
        (
            "DiskPressure",
            "False",
            "KubeletHasNoDiskPressure",
            "kubelet has no disk pressure",
        ),
        (
            "PIDPressure",
            "False",
            "KubeletHasSufficientPID",
            "kubelet has sufficient PID available",
        ),
        (
            "Ready",
            "True",
            "KubeletReady",
            "kubelet is posting ready status",
        ),
    ];
    // One of ours, so that nobody has to guess why a limit does nothing.
    conditions.push(match &facts.limits {
        Limits::Enforced => (
            "ResourceLimits",
            "True",
            "Enforced",
            "limits of CPU and memory are enforced",
        ),
        Limits::Absent(why) => ("ResourceLimits", "False", "NoControllers", *why),
    });
    let conditions: Vec<Value> = conditions
        .into_iter()
        .map(|(kind, status, reason, message)| {
            json!({
                "type": kind, "status": status, "reason": reason, "message": message,
                "lastHeartbeatTime": seconds(now),
                "lastTransitionTime": changed_at(known, kind, status).unwrap_or_else(|| seconds(now)),
            })
        })
        .collect();
    let amounts = json!({
        "cpu": facts.cpus.to_string(),
        "memory": format!("{}Ki", facts.memory_bytes / 1024),
        "pods": facts.pods.to_string(),
    });
    json!({"status": {
        "addresses": [
            {"type": "InternalIP", "address": facts.address},
            {"type": "Hostname", "address": facts.name},
        ],
        "capacity": amounts,
        "allocatable": amounts,
        "conditions": conditions,
        "daemonEndpoints": {"kubeletEndpoint": {"Port": names::PORT_AGENT}},
        "nodeInfo": {
            "architecture": architecture(),
            "bootID": facts.boot_id,
            "containerRuntimeVersion": concat!("meshgate://", env!("CARGO_PKG_VERSION")),
            "kernelVersion": facts.kernel,
            "kubeProxyVersion": "",
            "kubeletVersion": KUBELET_VERSION,
            "machineID": facts.machine_id,
            "operatingSystem": "linux",
            "osImage": facts.os_image,
            "systemUUID": facts.machine_id,
        },
    }})
}

fn changed_at(known: &Node, kind: &str, status: &str) -> Option<String> {
    let conditions = known.status.as_ref()?.conditions.as_ref()?;
    let same = conditions
        .iter()
        .find(|condition| condition.type_ == kind && condition.status == status)?;
    Some(seconds(same.last_transition_time.as_ref()?.0))
}

fn seconds(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_keep_their_time() {
        let facts = Facts::read(
            "node-0",
            "10.88.0.10".parse().expect("an address"),
            "10.244.0.0".parse().expect("an address"),
            Limits::Absent("why"),
        );
        let at = |second| Timestamp::from_second(second).expect("in range");
        let first = status(&facts, &Node::default(), at(1));
        let known: Node =
            serde_json::from_value(json!({"metadata": {}, "status": first["status"]}))
                .expect("a Node");
        let second = status(&facts, &known, at(2));
        let ready = &second["status"]["conditions"][3];
        assert_eq!(ready["lastTransitionTime"], "1970-01-01T00:00:01Z");
        assert_eq!(ready["lastHeartbeatTime"], "1970-01-01T00:00:02Z");
        assert_eq!(second["status"]["conditions"][4]["message"], "why");
        let wanted = object(&facts);
        assert!(!is_current(&Node::default(), &wanted));
        assert!(is_current(
            &serde_json::from_value(wanted.clone()).expect("a Node"),
            &wanted
        ));
    }
}
