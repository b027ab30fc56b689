//! Defaults as the real server stores them.

mod pod;

use serde_json::{Map, Value, json};

use crate::custom;
use crate::registry::{Builtin, Kind, Rules};
use crate::value::{at, list_at_mut, object_at_mut, object_in, set_if_unset, text_at};

const RBAC_GROUP: &str = "rbac.authorization.k8s.io";

impl Kind {
    /// Fills in what the writer left open. Safe to repeat, which is what happens after admission.
    pub fn default(&self, object: &mut Value) {
        let id = match self.rules() {
            Rules::Custom(version) => return custom::default(object, version.schema()),
            Rules::Builtin { id, .. } => *id,
        };
        match id {
            Builtin::Pod => pod::default_pod(object),
            Builtin::Deployment => default_deployment(object),
            Builtin::ReplicaSet => default_replica_set(object),
            Builtin::Service => default_service(object),
            Builtin::Namespace => default_namespace(object),
            Builtin::Node => default_node(object),
            Builtin::Secret => default_secret(object),
            Builtin::Endpoints => default_endpoints(object),
            Builtin::EndpointSlice => default_endpoint_slice(object),
            Builtin::IngressClass => default_ingress_class(object),
            Builtin::RoleBinding | Builtin::ClusterRoleBinding => default_binding(object),
            Builtin::MutatingWebhookConfiguration => default_webhooks(object),
            Builtin::CustomResourceDefinition => custom::default_definition(object),
            _ => {}
        }
    }
}

fn default_deployment(object: &mut Value) {
    let Some(spec) = object_at_mut(object, "spec") else {
        return;
    };
    set_if_unset(spec, "replicas", 1);
    set_if_unset(spec, "revisionHistoryLimit", 10);
    set_if_unset(spec, "progressDeadlineSeconds", 600);
    let strategy = object_in(spec, "strategy");
    set_if_unset(strategy, "type", "RollingUpdate");
    if strategy.get("type").and_then(Value::as_str) == Some("RollingUpdate") {
        let rolling = object_in(strategy, "rollingUpdate");
        set_if_unset(rolling, "maxUnavailable", "25%");
        set_if_unset(rolling, "maxSurge", "25%");
    }
    if let Some(template) = spec.get_mut("template") {
        pod::default_template(template);
    }
}

fn default_replica_set(object: &mut Value) {
    let Some(spec) = object_at_mut(object, "spec") else {
        return;
    };
    set_if_unset(spec, "replicas", 1);
    if let Some(template) = spec.get_mut("template") {
        pod::default_template(template);
    }
}

fn default_service(object: &mut Value) {
    let Some(spec) = object_at_mut(object, "spec") else {
        return;
    };
    set_if_unset(spec, "type", "ClusterIP");
    set_if_unset(spec, "sessionAffinity", "None");
    if spec.get("sessionAffinity").and_then(Value::as_str) == Some("ClientIP") {
        let client_ip = object_in(object_in(spec, "sessionAffinityConfig"), "clientIP");
        set_if_unset(client_ip, "timeoutSeconds", 10_800);
    } else {
        spec.shift_remove("sessionAffinityConfig");
    }
    let kind = spec
        .get("type")
        .and_then(Value::as_str)
        .unwrap_or("")
        .to_owned();
    if kind != "ExternalName" {
        set_if_unset(spec, "internalTrafficPolicy", "Cluster");
        set_if_unset(spec, "ipFamilyPolicy", "SingleStack");
        if spec
            .get("ipFamilies")
            .and_then(Value::as_array)
            .is_none_or(Vec::is_empty)
        {
            spec.insert("ipFamilies".into(), json!(["IPv4"]));
        }
    }
    if kind == "NodePort" || kind == "LoadBalancer" {
        set_if_unset(spec, "externalTrafficPolicy", "Cluster");
    }
    if kind == "LoadBalancer" {
        set_if_unset(spec, "allocateLoadBalancerNodePorts", true);
    }
    if let Some(Value::String(address)) = spec.get("clusterIP").cloned()
        && !address.is_empty()
        && spec
            .get("clusterIPs")
            .and_then(Value::as_array)
            .is_none_or(Vec::is_empty)
    {
        spec.insert("clusterIPs".into(), json!([address]));
    }
    for port in list_at_mut(object, "spec.ports") {
        let Some(port) = port.as_object_mut() else {
            continue;
        };
        set_if_unset(port, "protocol", "TCP");
        let target = port.get("targetPort");
        if target.is_none_or(|value| value.is_null() || *value == json!(0) || *value == json!("")) {
            let number = port.get("port").cloned().unwrap_or_default();
            port.insert("targetPort".into(), number);
        }
    }
}

fn default_namespace(object: &mut Value) {
    let name = text_at(object, "metadata.name").to_owned();
    if let Some(metadata) = object_at_mut(object, "metadata")
        && !name.is_empty()
    {
        object_in(metadata, "labels").insert("kubernetes.io/metadata.name".into(), name.into());
    }
    if let Some(status) = object_at_mut(object, "status") {
        set_if_unset(status, "phase", "Active");
    }
}

fn default_node(object: &mut Value) {
    let first = at(object, "spec.podCIDR")
        .or(object.pointer("/spec/podCIDRs/0"))
        .cloned();
    if let (Some(range), Some(spec)) = (first, object_at_mut(object, "spec")) {
        // The old field is the first of the new one, and wins where they differ.
        set_if_unset(spec, "podCIDR", range.clone());
        if spec.get("podCIDRs").and_then(|ranges| ranges.get(0)) != Some(&range) {
            spec.insert("podCIDRs".into(), json!([range]));
        }
    }
    let Some(capacity) = at(object, "status.capacity").cloned() else {
        return;
    };
    if let Some(status) = object_at_mut(object, "status") {
        set_if_unset(status, "allocatable", capacity);
    }
}

/// `stringData` is how people write data; only data is stored.
fn default_secret(object: &mut Value) {
    use base64::Engine as _;
    let Some(secret) = object.as_object_mut() else {
        return;
    };
    set_if_unset(secret, "type", "Opaque");
    let Some(Value::Object(texts)) = secret.shift_remove("stringData") else {
        return;
    };
    let data = object_in(secret, "data");
    for (key, text) in texts {
        let encoded = base64::engine::general_purpose::STANDARD.encode(text.as_str().unwrap_or(""));
        data.insert(key, encoded.into());
    }
    data.sort_keys();
}

fn default_endpoints(object: &mut Value) {
    for subset in list_at_mut(object, "subsets") {
        for port in list_at_mut(subset, "ports") {
            default_protocol(port);
        }
    }
}

fn default_endpoint_slice(object: &mut Value) {
    for port in list_at_mut(object, "ports") {
        default_protocol(port);
        if let Some(port) = port.as_object_mut() {
            port.entry("name").or_insert_with(|| "".into());
        }
    }
}

fn default_protocol(port: &mut Value) {
    if let Some(port) = port.as_object_mut() {
        set_if_unset(port, "protocol", "TCP");
    }
}

fn default_ingress_class(object: &mut Value) {
    if let Some(parameters) = object_at_mut(object, "spec.parameters") {
        set_if_unset(parameters, "scope", "Cluster");
    }
}

fn default_binding(object: &mut Value) {
    if let Some(role_ref) = object_at_mut(object, "roleRef") {
        set_if_unset(role_ref, "apiGroup", RBAC_GROUP);
    }
    for subject in list_at_mut(object, "subjects") {
        let is_account = text_at(subject, "kind") == "ServiceAccount";
        if let Some(subject) = subject.as_object_mut()
            && !is_account
        {
            set_if_unset(subject, "apiGroup", RBAC_GROUP);
        }
    }
}

fn default_webhooks(object: &mut Value) {
    for webhook in list_at_mut(object, "webhooks") {
        let Some(webhook) = webhook.as_object_mut() else {
            continue;
        };
        set_if_unset(webhook, "failurePolicy", "Fail");
        set_if_unset(webhook, "matchPolicy", "Equivalent");
        set_if_unset(webhook, "namespaceSelector", json!({}));
        set_if_unset(webhook, "objectSelector", json!({}));
        set_if_unset(webhook, "timeoutSeconds", 10);
        set_if_unset(webhook, "reinvocationPolicy", "Never");
        default_webhook_service(webhook);
        for rule in webhook
            .get_mut("rules")
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            if let Some(rule) = rule.as_object_mut() {
                set_if_unset(rule, "scope", "*");
            }
        }
    }
}

/// The port of `clientConfig.service`.
pub(crate) fn default_webhook_service(owner: &mut Map<String, Value>) {
    let service = owner
        .get_mut("clientConfig")
        .and_then(|config| config.get_mut("service"));
    if let Some(service) = service.and_then(Value::as_object_mut) {
        set_if_unset(service, "port", 443);
    }
}

/// Best effort, burstable or guaranteed: what a pod's requests and limits promise.
pub(crate) fn quality_of_service(pod: &Value) -> &'static str {
    let containers = [at(pod, "spec.containers"), at(pod, "spec.initContainers")];
    let containers: Vec<&Value> = containers
        .into_iter()
        .flatten()
        .filter_map(Value::as_array)
        .flatten()
        .collect();
    let is_set = |container: &Value, what: &str, resource: &str| {
        let text = text_at(container, &format!("resources.{what}.{resource}"));
        !matches!(text, "" | "0")
    };
    let any = containers.iter().any(|container| {
        ["limits", "requests"].iter().any(|what| {
            ["cpu", "memory"]
                .iter()
                .any(|resource| is_set(container, what, resource))
        })
    });
    if !any {
        return "BestEffort";
    }
    let guaranteed = containers.iter().all(|container| {
        ["cpu", "memory"].iter().all(|resource| {
            let of =
                |what: &str| text_at(container, &format!("resources.{what}.{resource}")).to_owned();
            is_set(container, "limits", resource)
                && (of("requests").is_empty() || of("requests") == of("limits"))
        })
    });
    if guaranteed {
        "Guaranteed"
    } else {
        "Burstable"
    }
}

#[cfg(test)]
mod tests;
