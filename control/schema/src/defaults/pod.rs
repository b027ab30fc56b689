//! Defaults of pods and of the templates from which controllers make them.

use serde_json::{Map, Value, json};

use crate::value::{at, list_at_mut, object_at_mut, object_in, set_if_unset, text_at};

/// 0644: what files of mounted ConfigMaps and Secrets may do.
const FILE_MODE: i64 = 420;

pub(super) fn default_pod(pod: &mut Value) {
    default_spec(pod);
    if let Some(spec) = object_at_mut(pod, "spec") {
        spec.entry("enableServiceLinks")
            .or_insert(Value::Bool(true));
    }
    for list in ["spec.containers", "spec.initContainers"] {
        for container in list_at_mut(pod, list) {
            requests_from_limits(container);
        }
    }
    if let Some(address) = at(pod, "status.podIP").cloned()
        && let Some(status) = object_at_mut(pod, "status")
    {
        set_if_unset(status, "podIPs", json!([{ "ip": address }]));
    }
}

/// A template gets a pod's defaults except those that only make sense when a pod is made of it.
pub(super) fn default_template(template: &mut Value) {
    default_spec(template);
}

/// What is limited and not asked for is asked for in full.
fn requests_from_limits(container: &mut Value) {
    let Some(limits) = at(container, "resources.limits")
        .and_then(Value::as_object)
        .cloned()
    else {
        return;
    };
    if let Some(resources) = object_at_mut(container, "resources") {
        let requests = object_in(resources, "requests");
        for (name, limit) in limits {
            requests.entry(name).or_insert(limit);
        }
        requests.sort_keys();
    }
}

/// Defaults of `spec`, in a pod or in a template.
fn default_spec(owner: &mut Value) {
    let Some(spec) = object_at_mut(owner, "spec") else {
        return;
    };
    set_if_unset(spec, "restartPolicy", "Always");
    set_if_unset(spec, "dnsPolicy", "ClusterFirst");
    set_if_unset(spec, "terminationGracePeriodSeconds", 30);
    set_if_unset(spec, "schedulerName", "default-scheduler");
    set_if_unset(spec, "securityContext", json!({}));
    same_account_names(spec);
    let host_network = spec.get("hostNetwork") == Some(&Value::Bool(true));
    for volume in list_at_mut(owner, "spec.volumes") {
        default_volume(volume);
    }
    for list in [
        "spec.containers",
        "spec.initContainers",
        "spec.ephemeralContainers",
    ] {
        for container in list_at_mut(owner, list) {
            default_container(container, host_network);
        }
    }
}

/// `serviceAccount` is the old name of `serviceAccountName`; both are always shown.
fn same_account_names(spec: &mut Map<String, Value>) {
    let text = |key: &str| {
        spec.get(key)
            .and_then(Value::as_str)
            .filter(|name| !name.is_empty())
    };
    let Some(name) = text("serviceAccountName")
        .or(text("serviceAccount"))
        .map(str::to_owned)
    else {
        return;
    };
    spec.insert("serviceAccountName".into(), name.clone().into());
    spec.insert("serviceAccount".into(), name.into());
}

fn default_container(container: &mut Value, host_network: bool) {
    let pull_policy = pull_policy_of(text_at(container, "image"));
    let Some(fields) = container.as_object_mut() else {
        return;
    };
    set_if_unset(fields, "imagePullPolicy", pull_policy);
    set_if_unset(fields, "terminationMessagePath", "/dev/termination-log");
    set_if_unset(fields, "terminationMessagePolicy", "File");
    for port in list_at_mut(container, "ports") {
        let Some(port) = port.as_object_mut() else {
            continue;
        };
        set_if_unset(port, "protocol", "TCP");
        if host_network {
            let number = port.get("containerPort").cloned().unwrap_or_default();
            set_if_unset(port, "hostPort", number);
        }
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = container.get_mut(probe) {
            default_probe(probe);
        }
    }
    for hook in ["lifecycle.postStart", "lifecycle.preStop"] {
        default_http_get(object_at_mut(container, &format!("{hook}.httpGet")));
    }
    for variable in list_at_mut(container, "env") {
        default_field_ref(object_at_mut(variable, "valueFrom.fieldRef"));
    }
}

/// Images whose tag may move are pulled always.
fn pull_policy_of(image: &str) -> &'static str {
    if image.contains('@') {
        return "IfNotPresent";
    }
    let name = image.rsplit('/').next().unwrap_or(image);
    match name.split_once(':') {
        None | Some((_, "latest")) => "Always",
        Some(_) => "IfNotPresent",
    }
}

fn default_probe(probe: &mut Value) {
    default_http_get(object_at_mut(probe, "httpGet"));
    if let Some(grpc) = object_at_mut(probe, "grpc") {
        grpc.entry("service").or_insert_with(|| "".into());
    }
    let Some(fields) = probe.as_object_mut() else {
        return;
    };
    for (key, value) in [
        ("timeoutSeconds", 1),
        ("periodSeconds", 10),
        ("successThreshold", 1),
        ("failureThreshold", 3),
    ] {
        set_if_unset(fields, key, value);
    }
}

fn default_http_get(action: Option<&mut Map<String, Value>>) {
    if let Some(action) = action {
        set_if_unset(action, "path", "/");
        set_if_unset(action, "scheme", "HTTP");
    }
}

fn default_field_ref(field_ref: Option<&mut Map<String, Value>>) {
    if let Some(field_ref) = field_ref {
        set_if_unset(field_ref, "apiVersion", "v1");
    }
}

fn default_volume(volume: &mut Value) {
    let has_source = volume.as_object().is_some_and(|fields| fields.len() > 1);
    if let Some(fields) = volume.as_object_mut()
        && !has_source
    {
        fields.insert("emptyDir".into(), json!({}));
    }
    for source in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = object_at_mut(volume, source) {
            set_if_unset(source, "defaultMode", FILE_MODE);
        }
    }
    if let Some(host_path) = object_at_mut(volume, "hostPath") {
        host_path.entry("type").or_insert_with(|| "".into());
    }
    for item in list_at_mut(volume, "downwardAPI.items") {
        default_field_ref(object_at_mut(item, "fieldRef"));
    }
    for source in list_at_mut(volume, "projected.sources") {
        if let Some(token) = object_at_mut(source, "serviceAccountToken") {
            set_if_unset(token, "expirationSeconds", 3600);
        }
        for item in list_at_mut(source, "downwardAPI.items") {
            default_field_ref(object_at_mut(item, "fieldRef"));
        }
    }
    if let Some(claim) = object_at_mut(volume, "ephemeral.volumeClaimTemplate.spec") {
        set_if_unset(claim, "volumeMode", "Filesystem");
    }
}
