//! Brings objects of a manifest into a cluster: created, or merged into what is there.

use anyhow::{Context, bail};
use futures::future::try_join_all;
use kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind, TypeMeta};
use kube::{Api, Client};
use serde::Deserialize;

/// Name under which these writes are recorded.
const MANAGER: &str = "meshgate";

/// Applies every document. What others need comes first.
pub(crate) async fn apply(client: Client, manifest: &str) -> anyhow::Result<()> {
    let manifest = Manifest::parse(manifest)?;
    put_all(&client, manifest.needed).await?;
    put_all(&client, manifest.others).await
}

/// The objects of a manifest in the order in which they can be applied.
#[derive(Debug)]
pub(crate) struct Manifest {
    /// Namespaces and definitions.
    pub(crate) needed: Vec<DynamicObject>,
    pub(crate) others: Vec<DynamicObject>,
}

impl Manifest {
    pub(crate) fn parse(text: &str) -> anyhow::Result<Manifest> {
        let (needed, others) = parse(text)?.into_iter().partition(|object| {
            let kind = object.types.as_ref().map(|types| types.kind.as_str());
            matches!(kind, Some("Namespace" | "CustomResourceDefinition"))
        });
        Ok(Manifest { needed, others })
    }
}

/// Applies objects that do not need each other.
pub(crate) async fn put_all(client: &Client, objects: Vec<DynamicObject>) -> anyhow::Result<()> {
    try_join_all(
        objects
            .into_iter()
            .map(|object| put(client.clone(), object)),
    )
    .await?;
    Ok(())
}

fn parse(manifest: &str) -> anyhow::Result<Vec<DynamicObject>> {
    let mut objects = Vec::new();
    for (i, document) in serde_norway::Deserializer::from_str(manifest).enumerate() {
        let value = serde_json::Value::deserialize(document)
            .with_context(|| format!("document {}", i + 1))?;
        if value.is_null() {
            continue;
        }
        objects.push(
            serde_json::from_value(value)
                .with_context(|| format!("document {} is no object", i + 1))?,
        );
    }
    Ok(objects)
}

async fn put(client: Client, object: DynamicObject) -> anyhow::Result<()> {
    let (Some(TypeMeta { api_version, kind }), Some(name)) =
        (object.types.clone(), object.metadata.name.clone())
    else {
        bail!("an object without apiVersion, kind or name");
    };
    let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, &kind));
    let api: Api<DynamicObject> = match &object.metadata.namespace {
        Some(namespace) => Api::namespaced_with(client, namespace, &resource),
        None => Api::all_with(client, &resource),
    };
    let named = || format!("{kind} {name}");
    match api.create(&PostParams::default(), &object).await {
        Err(kube::Error::Api(status)) if status.code == 409 => {
            let mut object = object;
            // How many there are is the user's business once they are there.
            if let Some(spec) = object
                .data
                .get_mut("spec")
                .and_then(|spec| spec.as_object_mut())
            {
                spec.remove("replicas");
            }
            let params = PatchParams {
                field_manager: Some(MANAGER.to_owned()),
                ..PatchParams::default()
            };
            api.patch(&name, &params, &Patch::Merge(&object))
                .await
                .with_context(named)?;
        }
        other => drop(other.with_context(named)?),
    }
    Ok(())
}
