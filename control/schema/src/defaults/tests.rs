use serde_json::json;

use super::*;
use crate::{FieldValidation, Registry};

/// Decodes, defaults twice (which must change nothing the second time), and compares what is at a path.
#[track_caller]
fn check(group: &str, plural: &str, object: Value, path: &str, want: Value) {
    let registry = Registry::builtin();
    let kind = registry.resource(group, "v1", plural).unwrap();
    let mut object = kind
        .decode_value(object, FieldValidation::Strict)
        .unwrap()
        .object;
    kind.default(&mut object);
    let once = object.clone();
    kind.default(&mut object);
    assert_eq!(once, object, "defaulting twice");
    assert_eq!(
        at(&object, path).cloned().unwrap_or_default(),
        want,
        "{path} of {object}"
    );
}

#[test]
fn pods() {
    let pod = |spec: Value| json!({"metadata": {"name": "p"}, "spec": spec});
    check(
        "",
        "pods",
        pod(
            json!({"containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80}], "livenessProbe": {"httpGet": {"port": 1}}, "resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "100m"}}}]}),
        ),
        "spec",
        json!({"containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80, "protocol": "TCP"}],
            "resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "100m", "memory": "1Gi"}},
            "livenessProbe": {"httpGet": {"path": "/", "port": 1, "scheme": "HTTP"}, "timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3},
            "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File", "imagePullPolicy": "Always"}],
            "restartPolicy": "Always", "terminationGracePeriodSeconds": 30, "dnsPolicy": "ClusterFirst", "securityContext": {}, "schedulerName": "default-scheduler", "enableServiceLinks": true}),
    );
    for (image, policy) in [
        ("a:1", "IfNotPresent"),
        ("a", "Always"),
        ("a:latest", "Always"),
        ("r:5000/a", "Always"),
        ("r:5000/a:2", "IfNotPresent"),
        ("a@sha256:00", "IfNotPresent"),
    ] {
        let registry = Registry::builtin();
        let kind = registry.resource("", "v1", "pods").unwrap();
        let mut object = pod(json!({"containers": [{"name": "c", "image": image}]}));
        kind.default(&mut object);
        assert_eq!(
            object["spec"]["containers"][0]["imagePullPolicy"], policy,
            "{image}"
        );
    }
    check(
        "",
        "pods",
        pod(
            json!({"containers": [], "volumes": [{"name": "a"}, {"name": "b", "configMap": {"name": "c"}}]}),
        ),
        "spec.volumes",
        json!([{"name": "a", "emptyDir": {}}, {"name": "b", "configMap": {"name": "c", "defaultMode": 420}}]),
    );
    check(
        "",
        "pods",
        pod(json!({"containers": [], "serviceAccount": "a"})),
        "spec.serviceAccountName",
        json!("a"),
    );
    check(
        "",
        "pods",
        pod(
            json!({"containers": [{"name": "c", "ports": [{"containerPort": 80}]}], "hostNetwork": true}),
        ),
        "spec.containers",
        json!([{"name": "c", "ports": [{"hostPort": 80, "containerPort": 80, "protocol": "TCP"}], "resources": {}, "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File", "imagePullPolicy": "Always"}]),
    );
}

#[test]
fn other_kinds() {
    let spec = |spec: Value| json!({"metadata": {"name": "x"}, "spec": spec});
    check(
        "",
        "services",
        spec(json!({"ports": [{"port": 80}]})),
        "spec",
        json!({"ports": [{"protocol": "TCP", "port": 80, "targetPort": 80}], "type": "ClusterIP", "sessionAffinity": "None", "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack", "internalTrafficPolicy": "Cluster"}),
    );
    check(
        "",
        "services",
        spec(json!({"type": "ExternalName", "externalName": "a.b"})),
        "spec",
        json!({"type": "ExternalName", "sessionAffinity": "None", "externalName": "a.b"}),
    );
    check(
        "",
        "services",
        spec(json!({"sessionAffinity": "ClientIP"})),
        "spec.sessionAffinityConfig.clientIP.timeoutSeconds",
        json!(10800),
    );
    check(
        "",
        "services",
        spec(json!({"type": "NodePort"})),
        "spec.externalTrafficPolicy",
        json!("Cluster"),
    );
    check(
        "apps",
        "deployments",
        spec(json!({"template": {}})),
        "spec.strategy",
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}}),
    );
    check(
        "apps",
        "deployments",
        spec(json!({"template": {}, "strategy": {"type": "Recreate"}})),
        "spec.strategy",
        json!({"type": "Recreate"}),
    );
    check(
        "apps",
        "replicasets",
        spec(json!({"replicas": 0, "template": {}})),
        "spec.replicas",
        json!(0),
    );
    check(
        "",
        "secrets",
        json!({"metadata": {"name": "s"}, "stringData": {"a": "b"}, "data": {"a": "eA==", "c": "ZA=="}}),
        "data",
        json!({"a": "Yg==", "c": "ZA=="}),
    );
    check(
        "",
        "secrets",
        json!({"metadata": {"name": "s"}}),
        "type",
        json!("Opaque"),
    );
    check(
        "",
        "namespaces",
        json!({"metadata": {"name": "n"}}),
        "metadata.labels",
        json!({"kubernetes.io/metadata.name": "n"}),
    );
    check(
        "rbac.authorization.k8s.io",
        "rolebindings",
        json!({"metadata": {"name": "b"}, "roleRef": {"kind": "Role", "name": "r"}, "subjects": [{"kind": "User", "name": "u"}, {"kind": "ServiceAccount", "name": "s"}]}),
        "subjects",
        json!([{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "u"}, {"kind": "ServiceAccount", "name": "s"}]),
    );
    check(
        "discovery.k8s.io",
        "endpointslices",
        json!({"metadata": {"name": "s"}, "addressType": "IPv4", "ports": [{"port": 1}]}),
        "ports",
        json!([{"name": "", "protocol": "TCP", "port": 1}]),
    );
    check(
        "admissionregistration.k8s.io",
        "mutatingwebhookconfigurations",
        json!({"metadata": {"name": "w"}, "webhooks": [{"name": "a", "clientConfig": {"service": {"name": "s", "namespace": "n"}}, "sideEffects": "None", "admissionReviewVersions": ["v1"], "rules": [{"operations": ["*"]}]}]}),
        "webhooks",
        json!([{"name": "a", "clientConfig": {"service": {"namespace": "n", "name": "s", "port": 443}}, "rules": [{"operations": ["*"], "scope": "*"}], "failurePolicy": "Fail", "matchPolicy": "Equivalent", "namespaceSelector": {}, "objectSelector": {}, "sideEffects": "None", "timeoutSeconds": 10, "admissionReviewVersions": ["v1"], "reinvocationPolicy": "Never"}]),
    );
}

#[test]
fn quality() {
    let pod = |resources: Value| json!({"spec": {"containers": [{"resources": resources}]}});
    assert_eq!(quality_of_service(&pod(json!({}))), "BestEffort");
    assert_eq!(
        quality_of_service(&pod(json!({"requests": {"cpu": "1"}}))),
        "Burstable"
    );
    assert_eq!(
        quality_of_service(&pod(json!({"limits": {"cpu": "1", "memory": "1Gi"}}))),
        "Guaranteed"
    );
    assert_eq!(
        quality_of_service(&pod(
            json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}})
        )),
        "Burstable"
    );
}
