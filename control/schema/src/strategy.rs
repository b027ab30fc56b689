//! What a write may not carry: status comes and goes through its own subresource, and a few fields are the server's.

use serde_json::{Map, Value, json};

use crate::custom;
use crate::decode::zero;
use crate::defaults::quality_of_service;
use crate::registry::{Builtin, Kind, Rules};
use crate::types::{Shape, by_name};
use crate::value::{at, list_at, object_at_mut, object_in};

impl Kind {
    /// Puts a new object into the state in which every object starts.
    pub fn prepare_create(&self, object: &mut Value) {
        match self.builtin_id() {
            Some(Builtin::Pod) => {
                let status = initial_pod_status(object);
                put(object, "status", Some(status));
            }
            Some(Builtin::Namespace) => {
                if let Some(fields) = object.as_object_mut() {
                    let spec = object_in(fields, "spec");
                    let finalizers = spec.entry("finalizers").or_insert_with(|| json!([]));
                    if let Some(list) = finalizers.as_array_mut()
                        && !list.contains(&json!("kubernetes"))
                    {
                        list.push(json!("kubernetes"));
                    }
                }
                put(object, "status", Some(json!({"phase": "Active"})));
            }
            Some(Builtin::CustomResourceDefinition) => custom::prepare_definition(object, None),
            // A node registers itself with its status.
            Some(Builtin::Node) => {}
            _ if self.has_status() => {
                let initial = self.zero_of("status");
                put(object, "status", initial);
            }
            _ => {}
        }
    }

    /// Undoes what an update of the object itself may not change.
    pub fn prepare_update(&self, new: &mut Value, old: &Value) {
        match self.builtin_id() {
            Some(Builtin::Namespace) => {
                // Namespace finalizers change through the finalize subresource.
                put(new, "spec", old.get("spec").cloned());
                put(new, "status", old.get("status").cloned());
            }
            Some(Builtin::CustomResourceDefinition) => custom::prepare_definition(new, Some(old)),
            Some(Builtin::Service) => {
                put(new, "status", old.get("status").cloned());
                keep_service_addresses(new, old);
            }
            _ if self.has_status() => put(new, "status", old.get("status").cloned()),
            _ => {}
        }
    }

    /// Undoes what an update of the status may not change.
    pub fn prepare_status_update(&self, new: &mut Value, old: &Value) {
        if self.is_custom() {
            let status = new.get("status").cloned();
            let managed = at(new, "metadata.managedFields").cloned();
            *new = old.clone();
            put(new, "status", status);
            if let Some(metadata) = object_at_mut(new, "metadata")
                && let Some(managed) = managed
            {
                metadata.insert("managedFields".into(), managed);
            }
            return;
        }
        put(new, "spec", old.get("spec").cloned());
        for key in [
            "ownerReferences",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
        ] {
            let kept = at(old, &format!("metadata.{key}")).cloned();
            if let Some(metadata) = object_at_mut(new, "metadata") {
                set_or_remove(metadata, key, kept);
            }
        }
        if self.builtin_id() == Some(Builtin::Pod)
            && let Some(class) = at(old, "status.qosClass").cloned()
            && let Some(status) = object_at_mut(new, "status")
        {
            status.entry("qosClass").or_insert(class);
        }
    }

    /// Undoes what the finalize subresource of namespaces may not change.
    pub fn prepare_finalize(&self, new: &mut Value, old: &Value) {
        let finalizers = at(new, "spec.finalizers").cloned();
        *new = old.clone();
        if let Some(fields) = new.as_object_mut() {
            set_or_remove(object_in(fields, "spec"), "finalizers", finalizers);
        }
    }

    /// Whether `metadata.generation` counts this kind's changes.
    pub fn has_generation(&self) -> bool {
        match self.builtin_id() {
            None => true,
            Some(id) => matches!(
                id,
                Builtin::Pod
                    | Builtin::Deployment
                    | Builtin::ReplicaSet
                    | Builtin::Ingress
                    | Builtin::IngressClass
                    | Builtin::EndpointSlice
                    | Builtin::CustomResourceDefinition
                    | Builtin::MutatingWebhookConfiguration
            ),
        }
    }

    /// Whether the change is one that `metadata.generation` counts.
    pub fn generation_changes(&self, new: &Value, old: &Value) -> bool {
        let differ = |path: &str| at(new, path) != at(old, path);
        match self.builtin_id() {
            None => self.outside_status(new) != self.outside_status(old),
            Some(Builtin::Deployment) => differ("spec") || differ("metadata.annotations"),
            Some(Builtin::EndpointSlice) => {
                self.outside_status(new) != self.outside_status(old) || differ("metadata.labels")
            }
            Some(Builtin::MutatingWebhookConfiguration) => differ("webhooks"),
            Some(_) => self.has_generation() && differ("spec"),
        }
    }

    /// The object without metadata, its type and (where that has its own subresource) status.
    fn outside_status<'o>(&self, object: &'o Value) -> Vec<(&'o String, &'o Value)> {
        let has_status = self.has_status();
        let mut fields: Vec<(&String, &Value)> = object
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(key, _)| {
                let apart = matches!(key.as_str(), "metadata" | "apiVersion" | "kind");
                let is_status = has_status && key.as_str() == "status";
                !apart && !is_status
            })
            .collect();
        fields.sort_by_key(|(key, _)| *key);
        fields
    }

    /// What a real server writes for a field of which nothing is set.
    fn zero_of(&self, field: &str) -> Option<Value> {
        let Rules::Builtin { type_name, .. } = self.rules() else {
            return None;
        };
        match by_name(type_name)?.get().field(field)?.shape {
            Shape::Object(inner) => Some(zero(inner)),
            _ => None,
        }
    }

    /// Warnings that an object earns although nothing is wrong with it.
    pub fn object_warnings(&self, object: &Value) -> Vec<String> {
        let (spec, annotations) = match self.builtin_id() {
            Some(Builtin::Pod) => ("spec", "metadata.annotations"),
            Some(Builtin::Deployment | Builtin::ReplicaSet) => {
                ("spec.template.spec", "spec.template.metadata.annotations")
            }
            _ => return Vec::new(),
        };
        let mut warnings = Vec::new();
        let old_seccomp = "seccomp.security.alpha.kubernetes.io/pod";
        if object
            .pointer(&format!("/{}", annotations.replace('.', "/")))
            .and_then(|map| map.get(old_seccomp))
            .is_some()
        {
            warnings.push(format!("{annotations}[{old_seccomp}]: non-functional in v1.27+; use the \"seccompProfile\" field instead"));
        }
        for list in ["initContainers", "containers"] {
            for (index, container) in list_at(object, &format!("{spec}.{list}"))
                .iter()
                .enumerate()
            {
                let mut seen: Vec<&str> = Vec::new();
                for (position, variable) in list_at(container, "env").iter().enumerate() {
                    let name = variable.get("name").and_then(Value::as_str).unwrap_or("");
                    if seen.contains(&name) {
                        warnings.push(format!("{spec}.{list}[{index}].env[{position}]: hides previous definition of {name:?}, which may be dropped when using apply"));
                    }
                    seen.push(name);
                }
            }
        }
        warnings
    }
}

fn initial_pod_status(pod: &Value) -> Value {
    let mut status = json!({"phase": "Pending", "qosClass": quality_of_service(pod)});
    if !list_at(pod, "spec.schedulingGates").is_empty() {
        status["conditions"] = json!([{
            "type": "PodScheduled",
            "status": "False",
            "lastProbeTime": null,
            "lastTransitionTime": null,
            "reason": "SchedulingGated",
            "message": "Scheduling is blocked due to non-empty scheduling gates",
        }]);
    }
    status
}

/// A client that updates a service without naming its addresses means those it has.
fn keep_service_addresses(new: &mut Value, old: &Value) {
    let is_external = |service: &Value| at(service, "spec.type") == Some(&json!("ExternalName"));
    if is_external(new) || is_external(old) {
        return;
    }
    for key in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
        let kept = at(old, &format!("spec.{key}")).cloned();
        if let Some(spec) = object_at_mut(new, "spec")
            && let Some(kept) = kept
        {
            let slot = spec.entry(key).or_insert(Value::Null);
            if slot.is_null()
                || slot.as_str() == Some("")
                || slot.as_array().is_some_and(Vec::is_empty)
            {
                *slot = kept;
            }
        }
    }
    keep_node_ports(new, old);
}

/// Ports that are still the same keep the node port they were given.
fn keep_node_ports(new: &mut Value, old: &Value) {
    let has_node_ports = matches!(
        at(new, "spec.type").and_then(Value::as_str),
        Some("NodePort" | "LoadBalancer")
    );
    if !has_node_ports {
        return;
    }
    for port in crate::value::list_at_mut(new, "spec.ports") {
        let same = list_at(old, "spec.ports").iter().find(|one| {
            one.get("port") == port.get("port") && one.get("protocol") == port.get("protocol")
        });
        if let (Some(number), Some(port)) = (
            same.and_then(|one| one.get("nodePort")).cloned(),
            port.as_object_mut(),
        ) {
            port.entry("nodePort").or_insert(number);
        }
    }
}

fn put(object: &mut Value, key: &str, value: Option<Value>) {
    if let Some(fields) = object.as_object_mut() {
        set_or_remove(fields, key, value);
    }
}

fn set_or_remove(fields: &mut Map<String, Value>, key: &str, value: Option<Value>) {
    match value {
        Some(value) => {
            fields.insert(key.to_owned(), value);
        }
        None => {
            fields.shift_remove(key);
        }
    }
}
