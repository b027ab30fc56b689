use serde_json::json;

use super::*;
use crate::Registry;

/// The cells of an object that was made 5 minutes ago, without its name and age.
#[track_caller]
fn check(group: &str, plural: &str, mut object: Value, want: Value) {
    let now: Timestamp = "2024-01-01T00:05:00Z".parse().unwrap();
    object["metadata"]["creationTimestamp"] = "2024-01-01T00:00:00Z".into();
    let registry = Registry::builtin();
    let kind = registry.resource(group, "v1", plural).unwrap();
    let options = TableOptions {
        include: IncludeObject::None,
        headers: true,
    };
    let table = kind.table(&[&object], json!({}), now, options);
    assert_eq!(table["rows"][0]["cells"], want);
    let columns = table["columnDefinitions"].as_array().unwrap().len();
    assert_eq!(columns, want.as_array().unwrap().len());
}

fn pod_reason(status: Value, spec: Value, want: [&str; 3]) {
    let now: Timestamp = "2024-01-01T00:05:00Z".parse().unwrap();
    let object = json!({"metadata": {"name": "p"}, "spec": spec, "status": status});
    let cells = pod::cells(&object, now);
    assert_eq!(cells[1..4], want.map(Value::from), "{object}");
}

#[test]
fn pods() {
    let one = json!({"containers": [{"name": "c"}]});
    let running = |ready: bool| json!({"name": "c", "ready": ready, "restartCount": 0, "state": {"running": {}}});
    pod_reason(
        json!({"phase": "Pending"}),
        one.clone(),
        ["0/1", "Pending", "0"],
    );
    pod_reason(
        json!({"phase": "Running", "containerStatuses": [running(true)]}),
        one.clone(),
        ["1/1", "Running", "0"],
    );
    pod_reason(
        json!({"phase": "Running", "containerStatuses": [{"name": "c", "restartCount": 2, "state": {"waiting": {"reason": "CrashLoopBackOff"}},
            "lastState": {"terminated": {"finishedAt": "2024-01-01T00:04:00Z"}}}]}),
        one.clone(),
        ["0/1", "CrashLoopBackOff", "2 (60s ago)"],
    );
    pod_reason(
        json!({"phase": "Succeeded", "containerStatuses": [{"state": {"terminated": {"reason": "Completed", "exitCode": 0}}}]}),
        one.clone(),
        ["0/1", "Completed", "0"],
    );
    pod_reason(
        json!({"phase": "Failed", "containerStatuses": [{"state": {"terminated": {"exitCode": 3}}}]}),
        one.clone(),
        ["0/1", "ExitCode:3", "0"],
    );
    pod_reason(
        json!({"phase": "Failed", "reason": "Evicted"}),
        one.clone(),
        ["0/1", "Evicted", "0"],
    );
    let with_init = json!({"containers": [{"name": "c"}], "initContainers": [{"name": "i"}, {"name": "s", "restartPolicy": "Always"}]});
    pod_reason(
        json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": {"running": {}}}]}),
        with_init.clone(),
        ["0/2", "Init:0/2", "0"],
    );
    pod_reason(
        json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "restartCount": 1, "state": {"terminated": {"exitCode": 1, "reason": "Error"}}}]}),
        with_init.clone(),
        ["0/2", "Init:Error", "1"],
    );
    pod_reason(
        json!({"phase": "Running", "initContainerStatuses": [{"name": "i", "restartCount": 4, "state": {"terminated": {"exitCode": 0}}},
            {"name": "s", "started": true, "ready": true, "restartCount": 1, "state": {"running": {}}}], "containerStatuses": [running(true)]}),
        with_init,
        ["2/2", "Running", "1"],
    );
}

#[test]
fn deleted_pods_are_terminating() {
    let pod = json!({"metadata": {"name": "p", "deletionTimestamp": "2024-01-01T00:00:00Z"}, "status": {"phase": "Running"}});
    assert_eq!(pod::cells(&pod, Timestamp::UNIX_EPOCH)[2], "Terminating");
}

#[test]
fn other_kinds() {
    check(
        "apps",
        "deployments",
        json!({"metadata": {"name": "d"}, "spec": {"replicas": 3, "selector": {"matchLabels": {"a": "b"}}, "template": {"spec": {"containers": [{"name": "c", "image": "i"}]}}}, "status": {"readyReplicas": 1, "updatedReplicas": 2}}),
        json!(["d", "1/3", 2, 0, "5m", "c", "i", "a=b"]),
    );
    check(
        "",
        "services",
        json!({"metadata": {"name": "s"}, "spec": {"type": "NodePort", "clusterIP": "10.0.0.1", "ports": [{"port": 80, "nodePort": 30000, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}]}}),
        json!([
            "s",
            "NodePort",
            "10.0.0.1",
            "<none>",
            "80:30000/TCP,53/UDP",
            "5m",
            "<none>"
        ]),
    );
    check(
        "",
        "services",
        json!({"metadata": {"name": "s"}, "spec": {"type": "LoadBalancer"}}),
        json!([
            "s",
            "LoadBalancer",
            "<none>",
            "<pending>",
            "<none>",
            "5m",
            "<none>"
        ]),
    );
    check(
        "networking.k8s.io",
        "ingresses",
        json!({"metadata": {"name": "i"}, "spec": {"ingressClassName": "m", "tls": [{}], "rules": [{"host": "a"}, {"host": "b"}, {"host": "c"}, {"host": "d"}]}}),
        json!(["i", "m", "a,b,c + 1 more...", "", "80, 443", "5m"]),
    );
    check(
        "",
        "nodes",
        json!({"metadata": {"name": "n", "labels": {"node-role.kubernetes.io/worker": ""}}, "spec": {"unschedulable": true}, "status": {"conditions": [{"type": "Ready", "status": "True"}], "addresses": [{"type": "InternalIP", "address": "10.0.0.2"}], "nodeInfo": {"kubeletVersion": "v1"}}}),
        json!([
            "n",
            "Ready,SchedulingDisabled",
            "worker",
            "5m",
            "v1",
            "10.0.0.2",
            "<none>",
            "<unknown>",
            "<unknown>",
            "<unknown>"
        ]),
    );
    check(
        "",
        "events",
        json!({"metadata": {"name": "e"}, "type": "Normal", "reason": "R", "involvedObject": {"kind": "Pod", "name": "p"}, "message": "m", "lastTimestamp": "2024-01-01T00:04:00Z", "firstTimestamp": "2024-01-01T00:00:00Z", "count": 2, "source": {"component": "c", "host": "h"}}),
        json!(["60s", "Normal", "R", "pod/p", "", "c, h", "m", "5m", 2, "e"]),
    );
    check(
        "discovery.k8s.io",
        "endpointslices",
        json!({"metadata": {"name": "s"}, "addressType": "IPv4", "ports": [{"port": 80}], "endpoints": [{"addresses": ["1.1.1.1"]}]}),
        json!(["s", "IPv4", "80", "1.1.1.1", "5m"]),
    );
    check(
        "rbac.authorization.k8s.io",
        "rolebindings",
        json!({"metadata": {"name": "b"}, "roleRef": {"kind": "Role", "name": "r"}, "subjects": [{"kind": "User", "name": "u"}, {"kind": "ServiceAccount", "name": "a", "namespace": "n"}]}),
        json!(["b", "Role/r", "5m", "u", "", "n/a"]),
    );
    check(
        "rbac.authorization.k8s.io",
        "roles",
        json!({"metadata": {"name": "r"}}),
        json!(["r", "2024-01-01T00:00:00Z"]),
    );
    check(
        "",
        "configmaps",
        json!({"metadata": {"name": "c"}, "data": {"a": "", "b": ""}}),
        json!(["c", 2, "5m"]),
    );
    check(
        "coordination.k8s.io",
        "leases",
        json!({"metadata": {"name": "l"}, "spec": {"holderIdentity": "h"}}),
        json!(["l", "h", "5m"]),
    );
}
