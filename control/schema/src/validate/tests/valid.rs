use serde_json::{Value, json};

use crate::Registry;
use crate::value::put_at;

/// A valid object of each kind, for tests to break.
fn valid(plural: &str) -> (&'static str, Value) {
    let pod_spec = json!({"containers": [{"name": "c", "image": "i", "ports": [{"name": "http", "containerPort": 80}],
        "volumeMounts": [{"name": "v", "mountPath": "/v"}], "readinessProbe": {"httpGet": {"port": "http"}}}], "volumes": [{"name": "v"}]});
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": pod_spec});
    let workload = json!({"selector": {"matchLabels": {"a": "b"}}, "template": template});
    let role_ref = |kind: &str| json!({"kind": kind, "name": "r"});
    match plural {
        "pods" => ("", json!({"spec": pod_spec})),
        "deployments" => ("apps", json!({"spec": workload})),
        "services" => (
            "",
            json!({"spec": {"selector": {"a": "b"}, "ports": [{"port": 80}], "clusterIP": "10.0.0.1"}}),
        ),
        "ingresses" => (
            "networking.k8s.io",
            json!({"spec": {"rules": [{"host": "a.test", "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "s", "port": {"number": 80}}}}]}}]}}),
        ),
        "ingressclasses" => (
            "networking.k8s.io",
            json!({"spec": {"controller": "a.test/c"}}),
        ),
        "configmaps" => ("", json!({"data": {"a": "b"}})),
        "secrets" => ("", json!({"data": {"a": "Yg=="}})),
        "roles" => (
            "rbac.authorization.k8s.io",
            json!({"rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]}),
        ),
        "rolebindings" => (
            "rbac.authorization.k8s.io",
            json!({"roleRef": role_ref("Role"), "subjects": [{"kind": "User", "name": "u"}]}),
        ),
        "clusterrolebindings" => (
            "rbac.authorization.k8s.io",
            json!({"roleRef": role_ref("ClusterRole")}),
        ),
        "nodes" => (
            "",
            json!({"spec": {"podCIDRs": ["10.0.0.0/24"], "taints": [{"key": "a", "effect": "NoSchedule"}]}}),
        ),
        "leases" => (
            "coordination.k8s.io",
            json!({"spec": {"leaseDurationSeconds": 40}}),
        ),
        "endpointslices" => (
            "discovery.k8s.io",
            json!({"addressType": "IPv4", "endpoints": [{"addresses": ["10.1.1.1"]}], "ports": [{"port": 80}]}),
        ),
        "events" => (
            "",
            json!({"involvedObject": {"kind": "Pod", "namespace": "ns", "name": "p"}}),
        ),
        "mutatingwebhookconfigurations" => (
            "admissionregistration.k8s.io",
            json!({"webhooks": [{"name": "a.b.test", "clientConfig": {"service": {"name": "s", "namespace": "n"}}, "sideEffects": "None", "admissionReviewVersions": ["v1"],
                "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}]}]}),
        ),
        "namespaces" => ("", json!({})),
        other => panic!("no valid {other}"),
    }
}

/// The same with a name, and where it belongs: its group in a registry.
pub(super) fn object(plural: &str) -> (Registry, &'static str, Value) {
    let registry = Registry::builtin();
    let (group, mut object) = valid(plural);
    let kind = registry.resource(group, "v1", plural).unwrap();
    put_at(&mut object, "metadata.name", json!("x"));
    if kind.namespaced() {
        put_at(&mut object, "metadata.namespace", json!("ns"));
    }
    (registry, group, object)
}
