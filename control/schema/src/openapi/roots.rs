//! The k8s-openapi type of each built-in kind.

use k8s_openapi::api::{
    admissionregistration, apps, authentication, authorization, autoscaling, coordination, core,
    discovery, events, networking, policy, rbac,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions;
use k8s_openapi::apimachinery::pkg::apis::meta;
use k8s_openapi::schemars::SchemaGenerator;

/// Adds the schema of a built-in kind, and of everything in it, to the generator.
pub(super) fn add(generator: &mut SchemaGenerator, type_name: &str) {
    macro_rules! add {
        ($($name:literal => $kind:ty,)*) => {
            match type_name {
                $($name => {
                    generator.subschema_for::<$kind>();
                })*
                _ => {}
            }
        };
    }
    add! {
        "io.k8s.api.core.v1.Binding" => core::v1::Binding,
        "io.k8s.api.core.v1.ConfigMap" => core::v1::ConfigMap,
        "io.k8s.api.core.v1.Endpoints" => core::v1::Endpoints,
        "io.k8s.api.core.v1.Event" => core::v1::Event,
        "io.k8s.api.core.v1.Namespace" => core::v1::Namespace,
        "io.k8s.api.core.v1.Node" => core::v1::Node,
        "io.k8s.api.core.v1.Pod" => core::v1::Pod,
        "io.k8s.api.core.v1.Secret" => core::v1::Secret,
        "io.k8s.api.core.v1.Service" => core::v1::Service,
        "io.k8s.api.core.v1.ServiceAccount" => core::v1::ServiceAccount,
        "io.k8s.api.apps.v1.Deployment" => apps::v1::Deployment,
        "io.k8s.api.apps.v1.ReplicaSet" => apps::v1::ReplicaSet,
        "io.k8s.api.events.v1.Event" => events::v1::Event,
        "io.k8s.api.rbac.v1.Role" => rbac::v1::Role,
        "io.k8s.api.rbac.v1.RoleBinding" => rbac::v1::RoleBinding,
        "io.k8s.api.rbac.v1.ClusterRole" => rbac::v1::ClusterRole,
        "io.k8s.api.rbac.v1.ClusterRoleBinding" => rbac::v1::ClusterRoleBinding,
        "io.k8s.api.networking.v1.Ingress" => networking::v1::Ingress,
        "io.k8s.api.networking.v1.IngressClass" => networking::v1::IngressClass,
        "io.k8s.api.discovery.v1.EndpointSlice" => discovery::v1::EndpointSlice,
        "io.k8s.api.coordination.v1.Lease" => coordination::v1::Lease,
        "io.k8s.api.policy.v1.Eviction" => policy::v1::Eviction,
        "io.k8s.api.autoscaling.v1.Scale" => autoscaling::v1::Scale,
        "io.k8s.api.authentication.v1.SelfSubjectReview" => authentication::v1::SelfSubjectReview,
        "io.k8s.api.authentication.v1.TokenRequest" => authentication::v1::TokenRequest,
        "io.k8s.api.authentication.v1.TokenReview" => authentication::v1::TokenReview,
        "io.k8s.api.authorization.v1.LocalSubjectAccessReview" => authorization::v1::LocalSubjectAccessReview,
        "io.k8s.api.authorization.v1.SelfSubjectAccessReview" => authorization::v1::SelfSubjectAccessReview,
        "io.k8s.api.authorization.v1.SelfSubjectRulesReview" => authorization::v1::SelfSubjectRulesReview,
        "io.k8s.api.authorization.v1.SubjectAccessReview" => authorization::v1::SubjectAccessReview,
        "io.k8s.api.admissionregistration.v1.MutatingWebhookConfiguration" => admissionregistration::v1::MutatingWebhookConfiguration,
        "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinition" => apiextensions::v1::CustomResourceDefinition,
        "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta" => meta::v1::ObjectMeta,
        "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta" => meta::v1::ListMeta,
        "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions" => meta::v1::DeleteOptions,
        "io.k8s.apimachinery.pkg.apis.meta.v1.Status" => meta::v1::Status,
    }
}
