//! The shop example, as `--demo` applies it.

use std::collections::BTreeMap;

use anyhow::Context;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use kube::{Api, Client};

pub(super) const NAMESPACE: &str = "shop";
/// The host that the shop's Ingress serves.
pub(super) const HOST: &str = "shop.localhost";
/// Secret that its Ingress names.
const SECRET: &str = "shop-tls";
pub(super) const DEPLOYMENTS: [&str; 3] = ["frontend", "catalog", "orders"];

pub(super) async fn apply(client: Client) -> anyhow::Result<()> {
    let manifest = include_str!("../../../examples/shop/shop.yaml");
    crate::apply::apply(client.clone(), manifest)
        .await
        .context("examples/shop/shop.yaml")?;
    certificate(client)
        .await
        .context("a certificate for the shop")
}

/// A self-signed certificate for the shop's host, unless there is one. Made here: a manifest with a private key in it
/// would be everybody's key.
async fn certificate(client: Client) -> anyhow::Result<()> {
    let made = rcgen::generate_simple_self_signed([HOST.to_owned()])?;
    let secret = Secret {
        metadata: ObjectMeta {
            name: Some(SECRET.to_owned()),
            ..ObjectMeta::default()
        },
        type_: Some("kubernetes.io/tls".to_owned()),
        string_data: Some(BTreeMap::from([
            ("tls.crt".to_owned(), made.cert.pem()),
            ("tls.key".to_owned(), made.signing_key.serialize_pem()),
        ])),
        ..Secret::default()
    };
    let secrets = Api::<Secret>::namespaced(client, NAMESPACE);
    match secrets.create(&PostParams::default(), &secret).await {
        Err(kube::Error::Api(status)) if status.code == 409 => {}
        other => drop(other?),
    }
    Ok(())
}
