//! The shop example, as `--demo` applies it.

use anyhow::Context;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::runtime::conditions::is_crd_established;
use kube::runtime::wait::await_condition;
use kube::{Api, Client};

pub(super) const NAMESPACE: &str = "shop";
/// The host that the shop's Ingress serves.
pub(super) const HOST: &str = "shop.localhost";
pub(super) const DEPLOYMENTS: [&str; 3] = ["frontend", "catalog", "orders"];

/// Policies that the shop uses: the control plane brings their definitions.
const DEFINITIONS: [&str; 2] = [
    "ratelimitpolicies.meshgate.dev",
    "backendpolicies.meshgate.dev",
];

pub(super) async fn apply(client: Client) -> anyhow::Result<()> {
    let definitions = Api::<CustomResourceDefinition>::all(client.clone());
    for name in DEFINITIONS {
        await_condition(definitions.clone(), name, is_crd_established())
            .await
            .with_context(|| format!("waiting for the definition {name}"))?;
    }
    let manifest = include_str!("../../../examples/shop/shop.yaml");
    crate::apply::apply(client, manifest)
        .await
        .context("examples/shop/shop.yaml")
}
