use serde_json::json;

use super::*;
use crate::value::put_at;
use crate::{FieldValidation, Registry};

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

fn object(plural: &str) -> (Registry, &'static str, Value) {
    let registry = Registry::builtin();
    let (group, mut object) = valid(plural);
    let kind = registry.resource(group, "v1", plural).unwrap();
    put_at(&mut object, "metadata.name", json!("x"));
    if kind.namespaced() {
        put_at(&mut object, "metadata.namespace", json!("ns"));
    }
    (registry, group, object)
}

/// Puts a value at a JSON pointer of a valid object (null removes) and lists what is then wrong.
#[track_caller]
fn check(plural: &str, pointer: &str, value: Value, want: &[&str]) {
    let (registry, group, mut object) = object(plural);
    put(&mut object, pointer, value);
    let kind = registry.resource(group, "v1", plural).unwrap();
    let mut object = kind
        .decode_value(object, FieldValidation::Strict)
        .unwrap()
        .object;
    kind.default(&mut object);
    let found: Vec<String> = kind
        .validate_create(&object)
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(found, want, "{plural} {pointer}");
}

fn put(object: &mut Value, pointer: &str, value: Value) {
    if pointer.is_empty() {
        return;
    }
    let (parent, last) = pointer.rsplit_once('/').unwrap();
    let mut slot = object;
    for key in parent.split('/').skip(1) {
        slot = match key.parse::<usize>() {
            Ok(index) if slot.is_array() => &mut slot[index],
            _ => &mut slot[key],
        };
    }
    match (last.parse::<usize>(), slot.as_array_mut()) {
        (Ok(index), Some(list)) if index >= list.len() => list.push(value),
        (Ok(index), Some(list)) => list[index] = value,
        _ => slot[last] = value,
    }
}

#[test]
fn valid_objects_are_valid() {
    for plural in [
        "pods",
        "deployments",
        "services",
        "ingresses",
        "ingressclasses",
        "configmaps",
        "secrets",
        "roles",
        "rolebindings",
        "clusterrolebindings",
        "nodes",
        "leases",
        "endpointslices",
        "events",
        "mutatingwebhookconfigurations",
        "namespaces",
    ] {
        check(plural, "", Value::Null, &[]);
    }
}

#[test]
fn metadata() {
    let subdomain = crate::names::dns1123_subdomain("Bad_").remove(0);
    check(
        "configmaps",
        "/metadata/name",
        json!("Bad_"),
        &[&format!(
            "metadata.name: Invalid value: \"Bad_\": {subdomain}"
        )],
    );
    check(
        "configmaps",
        "/metadata/name",
        Value::Null,
        &["metadata.name: Required value: name or generateName is required"],
    );
    check(
        "namespaces",
        "/metadata/namespace",
        json!("ns"),
        &["metadata.namespace: Forbidden: not allowed on this type"],
    );
    let label = crate::names::label_value("-").remove(0);
    check(
        "configmaps",
        "/metadata/labels",
        json!({"a": "-"}),
        &[&format!("metadata.labels: Invalid value: \"-\": {label}")],
    );
    check(
        "configmaps",
        "/metadata/annotations",
        json!({"a": "x".repeat(262_144)}),
        &["metadata.annotations: Too long: may not be more than 262144 bytes"],
    );
    check(
        "configmaps",
        "/metadata/ownerReferences",
        json!([{"apiVersion": "v1", "kind": "Pod", "name": "p"}]),
        &["metadata.ownerReferences.uid: Invalid value: \"\": must not be empty"],
    );
}

#[test]
fn pods() {
    check(
        "pods",
        "/spec/containers",
        json!([]),
        &["spec.containers: Required value"],
    );
    check(
        "pods",
        "/spec/containers/0/image",
        Value::Null,
        &["spec.containers[0].image: Required value"],
    );
    check(
        "pods",
        "/spec/containers/1",
        json!({"name": "c", "image": "i"}),
        &["spec.containers[1].name: Duplicate value: \"c\""],
    );
    check(
        "pods",
        "/spec/containers/0/ports/0/containerPort",
        json!(70_000),
        &[
            "spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
        ],
    );
    check(
        "pods",
        "/spec/containers/0/ports/1",
        json!({"name": "http", "containerPort": 81}),
        &["spec.containers[0].ports[1].name: Duplicate value: \"http\""],
    );
    check(
        "pods",
        "/spec/containers/0/ports/0/protocol",
        json!("ICMP"),
        &[
            "spec.containers[0].ports[0].protocol: Unsupported value: \"ICMP\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
        ],
    );
    check(
        "pods",
        "/spec/containers/0/volumeMounts/0/name",
        json!("w"),
        &["spec.containers[0].volumeMounts[0].name: Not found: \"w\""],
    );
    check(
        "pods",
        "/spec/containers/0/readinessProbe/httpGet",
        Value::Null,
        &["spec.containers[0].readinessProbe: Required value: must specify a handler type"],
    );
    check(
        "pods",
        "/spec/containers/0/livenessProbe",
        json!({"exec": {"command": ["x"]}, "successThreshold": 2}),
        &["spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1"],
    );
    check(
        "pods",
        "/spec/containers/0/env",
        json!([{"name": "a=b"}]),
        &[
            "spec.containers[0].env[0].name: Invalid value: \"a=b\": a valid environment variable name must consist only of printable ASCII characters other than '='",
        ],
    );
    check(
        "pods",
        "/spec/containers/0/resources",
        json!({"limits": {"cpu": "1"}, "requests": {"cpu": "2"}}),
        &[
            "spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1",
        ],
    );
    check(
        "pods",
        "/spec/containers/0/resources",
        json!({"limits": {"cpu": "-1"}}),
        &[
            "spec.containers[0].resources.limits[cpu]: Invalid value: \"-1\": must be greater than or equal to 0",
            "spec.containers[0].resources.requests[cpu]: Invalid value: \"-1\": must be greater than or equal to 0",
        ],
    );
    check(
        "pods",
        "/spec/containers/0/imagePullPolicy",
        json!("Sometimes"),
        &[
            "spec.containers[0].imagePullPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"IfNotPresent\", \"Never\"",
        ],
    );
    check(
        "pods",
        "/spec/restartPolicy",
        json!("Maybe"),
        &[
            "spec.restartPolicy: Unsupported value: \"Maybe\": supported values: \"Always\", \"OnFailure\", \"Never\"",
        ],
    );
    check(
        "pods",
        "/spec/volumes/1",
        json!({"name": "v", "emptyDir": {}}),
        &["spec.volumes[1].name: Duplicate value: \"v\""],
    );
    check(
        "pods",
        "/spec/volumes/0",
        json!({"name": "v", "emptyDir": {}, "hostPath": {"path": "/"}}),
        &[
            "spec.volumes[0].emptyDir: Forbidden: may not specify more than 1 volume type",
            "spec.containers[0].volumeMounts[0].name: Not found: \"v\"",
        ],
    );
    check(
        "pods",
        "/spec/volumes/0",
        json!({"name": "v", "secret": {}}),
        &[
            "spec.volumes[0].secret.secretName: Required value",
            "spec.containers[0].volumeMounts[0].name: Not found: \"v\"",
        ],
    );
    check(
        "pods",
        "/spec/initContainers",
        json!([{"name": "i", "image": "i", "livenessProbe": {"exec": {"command": ["x"]}}}]),
        &[
            "spec.initContainers[0].livenessProbe: Forbidden: may not be set for init containers without restartPolicy=Always",
        ],
    );
    check(
        "pods",
        "/spec/initContainers",
        json!([{"name": "i", "image": "i", "restartPolicy": "Always", "livenessProbe": {"exec": {"command": ["x"]}}}]),
        &[],
    );
    check(
        "pods",
        "/spec/tolerations",
        json!([{"operator": "Exists", "value": "x"}]),
        &[
            "spec.tolerations[0].operator: Invalid value: {\"operator\":\"Exists\",\"value\":\"x\"}: value must be empty when `operator` is 'Exists'",
        ],
    );
}

#[test]
fn workloads() {
    check(
        "deployments",
        "/spec/selector",
        Value::Null,
        &[
            "spec.selector: Required value",
            "spec.template.metadata.labels: Invalid value: {\"a\":\"b\"}: `selector` does not match template `labels`",
        ],
    );
    check(
        "deployments",
        "/spec/selector",
        json!({}),
        &["spec.selector: Invalid value: {}: empty selector is invalid for deployment"],
    );
    check(
        "deployments",
        "/spec/template/metadata/labels",
        json!({"x": "y"}),
        &[
            "spec.template.metadata.labels: Invalid value: {\"x\":\"y\"}: `selector` does not match template `labels`",
        ],
    );
    check(
        "deployments",
        "/spec/replicas",
        json!(-1),
        &["spec.replicas: Invalid value: -1: must be greater than or equal to 0"],
    );
    check(
        "deployments",
        "/spec/template/spec/restartPolicy",
        json!("Never"),
        &[
            "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\"",
        ],
    );
    check(
        "deployments",
        "/spec/strategy",
        json!({"type": "Recreate", "rollingUpdate": {}}),
        &[
            "spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'",
        ],
    );
    check(
        "deployments",
        "/spec/strategy",
        json!({"rollingUpdate": {"maxSurge": 0, "maxUnavailable": "0%"}}),
        &[
            "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"0%\": may not be 0 when `maxSurge` is 0",
        ],
    );
    check(
        "deployments",
        "/spec/template/spec/containers/0/name",
        json!(""),
        &["spec.template.spec.containers[0].name: Required value"],
    );
}

#[test]
fn network() {
    check(
        "services",
        "/spec/ports/1",
        json!({"port": 81, "name": "b"}),
        &["spec.ports[0].name: Required value"],
    );
    check(
        "services",
        "/spec/ports/0/port",
        json!(0),
        &[
            "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
            "spec.ports[0].targetPort: Invalid value: 0: must be between 1 and 65535, inclusive",
        ],
    );
    check(
        "services",
        "/spec/ports/0/nodePort",
        json!(30_000),
        &["spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"],
    );
    check(
        "services",
        "/spec/type",
        json!("Magic"),
        &[
            "spec.type: Unsupported value: \"Magic\": supported values: \"ClusterIP\", \"ExternalName\", \"LoadBalancer\", \"NodePort\"",
        ],
    );
    check(
        "services",
        "/spec/externalIPs",
        json!(["010.1.1.1"]),
        &[
            "spec.externalIPs[0]: Invalid value: \"010.1.1.1\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
        ],
    );
    check(
        "services",
        "/spec/ports",
        json!([]),
        &["spec.ports: Required value"],
    );
    check(
        "ingresses",
        "/spec/rules/0/http/paths/0/pathType",
        Value::Null,
        &["spec.rules[0].http.paths[0].pathType: Required value: pathType must be specified"],
    );
    check(
        "ingresses",
        "/spec/rules/0/http/paths/0/path",
        json!("a//b"),
        &[
            "spec.rules[0].http.paths[0].path: Invalid value: \"a//b\": must be an absolute path",
            "spec.rules[0].http.paths[0].path: Invalid value: \"a//b\": must not contain '//'",
        ],
    );
    check(
        "ingresses",
        "/spec/rules/0/host",
        json!("1.2.3.4"),
        &["spec.rules[0].host: Invalid value: \"1.2.3.4\": must be a DNS name, not an IP address"],
    );
    check(
        "ingresses",
        "/spec/rules",
        json!([]),
        &["spec: Invalid value: null: either `defaultBackend` or `rules` must be specified"],
    );
    check(
        "ingresses",
        "/spec/rules/0/http/paths/0/backend/service/port",
        json!({}),
        &["spec.rules[0].http.paths[0].backend: Required value: port name or number is required"],
    );
    check(
        "ingressclasses",
        "/spec/controller",
        json!("nothing"),
        &[
            "spec.controller: Invalid value: \"nothing\": must be a domain-prefixed path (such as \"acme.io/foo\")",
        ],
    );
    check(
        "endpointslices",
        "/endpoints/0/addresses/0",
        json!("127.0.0.1"),
        &[
            "endpoints[0].addresses[0]: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)",
        ],
    );
    check(
        "endpointslices",
        "/addressType",
        json!("IPv5"),
        &[
            "addressType: Unsupported value: \"IPv5\": supported values: \"FQDN\", \"IPv4\", \"IPv6\"",
        ],
    );
}

#[test]
fn the_rest() {
    let key = crate::names::config_key("a/b").remove(0);
    check(
        "configmaps",
        "/data",
        json!({"a/b": ""}),
        &[&format!("data[a/b]: Invalid value: \"a/b\": {key}")],
    );
    check(
        "configmaps",
        "/data",
        json!({"a": "x".repeat(1_048_577)}),
        &["[]: Too long: may not be more than 1048576 bytes"],
    );
    check(
        "secrets",
        "/type",
        json!("kubernetes.io/tls"),
        &[
            "data[tls.crt]: Required value",
            "data[tls.key]: Required value",
        ],
    );
    check(
        "roles",
        "/rules/0/verbs",
        json!([]),
        &["rules[0].verbs: Required value: verbs must contain at least one value"],
    );
    check(
        "rolebindings",
        "/roleRef/kind",
        json!("Pod"),
        &["roleRef.kind: Unsupported value: \"Pod\": supported values: \"Role\", \"ClusterRole\""],
    );
    check(
        "clusterrolebindings",
        "/subjects",
        json!([{"kind": "ServiceAccount", "name": "s"}]),
        &["subjects[0].namespace: Required value"],
    );
    check(
        "nodes",
        "/spec/taints/1",
        json!({"key": "a", "effect": "NoSchedule"}),
        &[
            "metadata.taints[1]: Duplicate value: {\"key\":\"a\",\"effect\":\"NoSchedule\"}: taints must be unique by key and effect pair",
        ],
    );
    check(
        "leases",
        "/spec/leaseDurationSeconds",
        json!(0),
        &["spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0"],
    );
    check(
        "events",
        "/involvedObject/namespace",
        json!("other"),
        &["involvedObject.namespace: Invalid value: \"other\": does not match event.namespace"],
    );
    check(
        "mutatingwebhookconfigurations",
        "/webhooks/0/name",
        json!("a"),
        &[
            "webhooks[0].name: Invalid value: \"a\": should be a domain with at least three segments separated by dots",
        ],
    );
    check(
        "mutatingwebhookconfigurations",
        "/webhooks/0/timeoutSeconds",
        json!(31),
        &[
            "webhooks[0].timeoutSeconds: Invalid value: 31: the timeout value must be between 1 and 30 seconds",
        ],
    );
    check(
        "mutatingwebhookconfigurations",
        "/webhooks/0/clientConfig",
        json!({}),
        &["webhooks[0].clientConfig: Required value: exactly one of url or service is required"],
    );
}

/// What an update may not do: a pointer and a value in a valid object, and the field that is named.
#[track_caller]
fn check_update(plural: &str, pointer: &str, value: Value, want: &str) {
    let (registry, group, old) = object(plural);
    let kind = registry.resource(group, "v1", plural).unwrap();
    let mut new = old.clone();
    put(&mut new, pointer, value);
    let stored = |object: Value| {
        let mut object = kind
            .decode_value(object, FieldValidation::Strict)
            .unwrap()
            .object;
        kind.default(&mut object);
        object
    };
    let (mut new, old) = (stored(new), stored(old));
    kind.prepare_update(&mut new, &old);
    let found = kind.validate_update(&new, &old);
    let fields: Vec<&str> = found.iter().map(|error| error.field.as_str()).collect();
    let wanted: Vec<&str> = if want.is_empty() {
        Vec::new()
    } else {
        vec![want]
    };
    assert_eq!(fields, wanted, "{plural} {pointer}: {found:?}");
}

#[test]
fn updates() {
    check_update("pods", "/spec/containers/0/image", json!("j"), "");
    check_update("pods", "/spec/containers/0/command", json!(["x"]), "spec");
    check_update("pods", "/spec/nodeName", json!("n"), "spec");
    check_update(
        "pods",
        "/spec/tolerations",
        json!([{"key": "a", "operator": "Exists"}]),
        "",
    );
    check_update(
        "pods",
        "/spec/containers/1",
        json!({"name": "d", "image": "i"}),
        "spec.containers",
    );
    check_update("pods", "/metadata/labels", json!({"a": "b"}), "");
    check_update(
        "deployments",
        "/spec/template/spec/containers/0/image",
        json!("j"),
        "",
    );
    check_update("deployments", "/metadata/uid", json!("u"), "metadata.uid");
    check_update(
        "services",
        "/spec/clusterIP",
        json!("10.0.0.2"),
        "spec.clusterIPs[0]",
    );
    check_update("services", "/spec/clusterIP", Value::Null, "");
    check_update("rolebindings", "/roleRef/name", json!("s"), "roleRef");
    check_update(
        "ingressclasses",
        "/spec/controller",
        json!("a.test/d"),
        "spec.controller",
    );
    check_update(
        "nodes",
        "/spec/podCIDRs",
        json!(["10.0.1.0/24"]),
        "spec.podCIDRs",
    );
    check_update("secrets", "/type", json!("example.test/other"), "type");
}

#[test]
fn immutable_data() {
    let (registry, group, mut old) = object("configmaps");
    let kind = registry.resource(group, "v1", "configmaps").unwrap();
    old["immutable"] = true.into();
    let mut new = old.clone();
    new["data"] = json!({"a": "c"});
    let found = kind.validate_update(&new, &old);
    assert_eq!(
        found[0].to_string(),
        "data: Forbidden: field is immutable when `immutable` is set"
    );
}
