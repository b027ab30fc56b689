//! The shop example, as `--demo` applies it.

use anyhow::Context;

use crate::cluster::State;

pub(super) const NAMESPACE: &str = "shop";
/// The host that the shop's Ingress serves.
pub(super) const HOST: &str = "shop.localhost";
pub(super) const DEPLOYMENTS: [&str; 3] = ["frontend", "catalog", "orders"];

pub(super) async fn apply(client: kube::Client, _state: &State) -> anyhow::Result<()> {
    let manifest = include_str!("../../../examples/shop/shop.yaml");
    crate::apply::apply(client, manifest)
        .await
        .context("examples/shop/shop.yaml")
}
