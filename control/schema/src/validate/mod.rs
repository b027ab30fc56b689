//! Validation: everything that is wrong with an object, each cause with the field's exact path and the real server's
//! words. Objects are decoded and defaulted before, so types are right here.

mod access;
mod checks;
mod configuration;
mod endpoints;
mod ingress;
pub(crate) mod metadata;
mod node;
mod pod;
mod service;
mod webhook;
mod workload;

use serde_json::Value;

use crate::FieldError;
use crate::custom;
use crate::registry::{Builtin, Kind, Rules};

use metadata::NameForm;
pub(crate) use webhook::validate_client_config;

impl Kind {
    /// Everything that is wrong with a new object.
    pub fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = metadata::validate(object, self.namespaced(), self.name_form());
        match self.rules() {
            Rules::Custom(version) => errors.extend(version.validate(object)),
            Rules::Builtin { id, .. } => {
                let free = [Builtin::Lease, Builtin::MutatingWebhookConfiguration];
                if !free.contains(id) {
                    metadata::validate_finalizers(object, &mut errors);
                }
                content(*id, object, &mut errors);
            }
        }
        errors
    }

    /// Everything that is wrong with an update.
    pub fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = metadata::validate(new, self.namespaced(), self.name_form());
        metadata::validate_update(new, old, &mut errors);
        let id = match self.rules() {
            Rules::Custom(version) => {
                errors.extend(version.validate(new));
                return errors;
            }
            Rules::Builtin { id, .. } => *id,
        };
        content(id, new, &mut errors);
        match id {
            Builtin::Pod => pod::validate_update(new, old, &mut errors),
            Builtin::Deployment | Builtin::ReplicaSet => {
                checks::immutable(new, old, "spec.selector", &mut errors);
            }
            Builtin::Service => service::validate_update(new, old, &mut errors),
            Builtin::ConfigMap | Builtin::Secret => {
                configuration::validate_update(new, old, &mut errors);
            }
            Builtin::RoleBinding | Builtin::ClusterRoleBinding => {
                access::validate_binding_update(new, old, &mut errors);
            }
            Builtin::IngressClass => checks::immutable(new, old, "spec.controller", &mut errors),
            Builtin::EndpointSlice => checks::immutable(new, old, "addressType", &mut errors),
            Builtin::Node => node::validate_update(new, old, &mut errors),
            Builtin::CustomResourceDefinition => {
                errors.extend(custom::validate_definition_update(new, old));
            }
            _ => {}
        }
        errors
    }

    /// Everything that is wrong with an update of the status.
    pub fn validate_status_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        metadata::validate_update(new, old, &mut errors);
        match self.rules() {
            Rules::Custom(version) => errors.extend(version.validate(new)),
            Rules::Builtin {
                id: Builtin::Namespace,
                ..
            } => {
                node::validate_namespace_status(new, &mut errors);
            }
            Rules::Builtin {
                id: Builtin::Deployment | Builtin::ReplicaSet,
                ..
            } => {
                workload::validate_status(new, &mut errors);
            }
            Rules::Builtin { .. } => {}
        }
        errors
    }

    /// The form that names of this kind have.
    fn name_form(&self) -> NameForm {
        match self.builtin_id() {
            Some(Builtin::Namespace | Builtin::Service) => NameForm::Label,
            Some(
                Builtin::Role
                | Builtin::RoleBinding
                | Builtin::ClusterRole
                | Builtin::ClusterRoleBinding,
            ) => NameForm::PathSegment,
            Some(Builtin::Review | Builtin::Binding) => NameForm::Free,
            _ => NameForm::Subdomain,
        }
    }
}

/// The rules of a kind's own fields.
fn content(id: Builtin, object: &Value, errors: &mut Vec<FieldError>) {
    match id {
        Builtin::Pod => pod::validate(object, errors),
        Builtin::Deployment => workload::validate_deployment(object, errors),
        Builtin::ReplicaSet => workload::validate_replica_set(object, errors),
        Builtin::Service => service::validate(object, errors),
        Builtin::Ingress => ingress::validate(object, errors),
        Builtin::IngressClass => ingress::validate_class(object, errors),
        Builtin::ConfigMap => configuration::validate_config_map(object, errors),
        Builtin::Secret => configuration::validate_secret(object, errors),
        Builtin::Role => access::validate_role(object, true, errors),
        Builtin::ClusterRole => access::validate_role(object, false, errors),
        Builtin::RoleBinding => access::validate_binding(object, true, errors),
        Builtin::ClusterRoleBinding => access::validate_binding(object, false, errors),
        Builtin::Node => node::validate(object, errors),
        Builtin::Lease => node::validate_lease(object, errors),
        Builtin::Event | Builtin::EventsEvent => node::validate_event(object, errors),
        Builtin::Endpoints => endpoints::validate(object, errors),
        Builtin::EndpointSlice => endpoints::validate_slice(object, errors),
        Builtin::MutatingWebhookConfiguration => webhook::validate(object, errors),
        Builtin::CustomResourceDefinition => errors.extend(custom::validate_definition(object)),
        Builtin::Binding => node::validate_pod_binding(object, errors),
        Builtin::Namespace | Builtin::ServiceAccount | Builtin::Review => {}
    }
}

#[cfg(test)]
mod tests;
