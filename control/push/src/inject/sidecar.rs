//! The container and the volume that are put into pods.

use meshgate_api::names;
use serde_json::{Value, json};

use super::{Annotations, InjectOptions};

const VOLUME: &str = "meshgate-identity";

/// A native sidecar (KEP-753): an init container that stays, and is ready before the next one starts.
pub(super) fn container(pod: &Value, annotations: &Annotations, options: &InjectOptions) -> Value {
    let ready = json!({ "path": "/readyz", "port": names::PORT_READY });
    json!({
        "name": names::SIDECAR_CONTAINER,
        "image": options.image,
        "imagePullPolicy": "IfNotPresent",
        "restartPolicy": "Always",
        "args": args(annotations, options),
        "env": env(pod, annotations, options),
        "ports": [
            { "name": "mesh-mtls", "containerPort": names::PORT_MTLS, "protocol": "TCP" },
            { "name": "mesh-metrics", "containerPort": names::PORT_METRICS, "protocol": "TCP" },
            { "name": "mesh-ready", "containerPort": names::PORT_READY, "protocol": "TCP" },
        ],
        "resources": resources(annotations),
        // A minute until the first certificate and configuration; the control plane may be starting too.
        "startupProbe": { "httpGet": ready, "periodSeconds": 1, "timeoutSeconds": 1, "failureThreshold": 60 },
        "readinessProbe": { "httpGet": ready, "periodSeconds": 5, "timeoutSeconds": 1, "failureThreshold": 3 },
        // Starts as root to program the redirect in the pod's own network, then drops to its own user.
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "capabilities": { "drop": ["ALL"], "add": ["NET_ADMIN", "SETGID", "SETUID"] },
            "privileged": false,
            "readOnlyRootFilesystem": true,
            "runAsGroup": 0,
            "runAsNonRoot": false,
            "runAsUser": 0,
        },
        "volumeMounts": [
            { "name": VOLUME, "mountPath": names::IDENTITY_TOKEN_DIR, "readOnly": true },
        ],
    })
}

/// Token and cluster CA in a volume of our own: pods without an automounted token get them too.
pub(super) fn volume() -> Value {
    json!({
        "name": VOLUME,
        "projected": {
            // Readable by the sidecar's user; the token is worth nothing outside this pod's own identity.
            "defaultMode": 0o444,
            "sources": [
                {
                    "serviceAccountToken": {
                        "audience": names::IDENTITY_AUDIENCE,
                        "expirationSeconds": 3600,
                        "path": "token",
                    },
                },
                {
                    "configMap": {
                        "name": "kube-root-ca.crt",
                        "items": [{ "key": "ca.crt", "path": "ca.crt" }],
                    },
                },
            ],
        },
    })
}

fn args(annotations: &Annotations, options: &InjectOptions) -> Vec<String> {
    let mut args = vec![
        "sidecar".to_owned(),
        "--control".to_owned(),
        options.control.clone(),
        "--trust-domain".to_owned(),
        options.trust_domain.clone(),
    ];
    let lists = [
        ("--skip-inbound-ports", &annotations.skip_inbound),
        ("--skip-outbound-ports", &annotations.skip_outbound),
        ("--opaque-ports", &annotations.opaque),
    ];
    for (flag, ports) in lists {
        if let Some(ports) = ports {
            args.extend([flag.to_owned(), ports.to_string()]);
        }
    }
    args.extend(options.trace.iter().cloned());
    args
}

fn env(pod: &Value, annotations: &Annotations, options: &InjectOptions) -> Vec<Value> {
    let fields = [
        ("POD_NAME", "metadata.name"),
        ("POD_NAMESPACE", "metadata.namespace"),
        ("POD_UID", "metadata.uid"),
        ("POD_IP", "status.podIP"),
        ("NODE_NAME", "spec.nodeName"),
        ("SERVICE_ACCOUNT", "spec.serviceAccountName"),
    ];
    let field = |(name, path): (&str, &str)| json!({ "name": name, "valueFrom": { "fieldRef": { "fieldPath": path } } });
    let log = annotations
        .log
        .iter()
        .map(|filter| json!({ "name": "RUST_LOG", "value": filter }));
    // The allocator would ask for huge pages, and each touched corner of a heap of 1 MiB would count for 2 MiB.
    let small_pages = json!({ "name": "MIMALLOC_ALLOW_THP", "value": "0" });
    let fields = fields.into_iter().map(field);
    // Its spans are the application's in every view by service.
    let service = service_name(pod).filter(|_| !options.trace.is_empty());
    let service = service.map(|name| json!({ "name": "OTEL_SERVICE_NAME", "value": name }));
    fields
        .chain([small_pages])
        .chain(service)
        .chain(log)
        .collect()
}

/// What people call the application (OpenTelemetry's order of Kubernetes' labels).
fn service_name(pod: &Value) -> Option<&str> {
    let labels = &pod["metadata"]["labels"];
    [
        "app.kubernetes.io/instance",
        "app.kubernetes.io/name",
        "app",
    ]
    .iter()
    .find_map(|label| labels[*label].as_str())
}

fn resources(annotations: &Annotations) -> Value {
    let memory = annotations.memory.as_deref();
    json!({
        "requests": {
            "cpu": annotations.cpu.as_deref().unwrap_or("10m"),
            "memory": memory.unwrap_or("16Mi"),
        },
        // No CPU limit: throttling shows as latency of the application.
        "limits": { "memory": memory.unwrap_or("128Mi") },
    })
}
