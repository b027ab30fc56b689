use serde_json::{Value, json};

use super::check;

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
