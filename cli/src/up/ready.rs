//! What must be there before `up` says that it is: the control plane's own objects, nodes, the edge, and with `--demo`
//! the shop behind it.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail};
use futures::future::try_join_all;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::networking::v1::IngressClass;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::runtime::conditions::is_crd_established;
use kube::runtime::wait::{Condition, await_condition};
use kube::{Api, Client};
use meshgate_api::names;

use super::progress::Progress;
use super::{client, demo, host};
use crate::args::UpArgs;
use crate::cluster::{Cluster, State};
use crate::supervisor::spec::node_name;

/// A step that takes longer has failed. Generous: the machine may be busy.
const STEP_MAX: Duration = Duration::from_secs(60);
/// Between two questions to the edge whether the demo's route is in force.
const ASK_AGAIN: Duration = Duration::from_millis(5);

/// Definitions of our policies: the control plane brings them.
const DEFINITIONS: [&str; 3] = [
    "accesspolicies.meshgate.dev",
    "backendpolicies.meshgate.dev",
    "ratelimitpolicies.meshgate.dev",
];
/// What asks the injector for sidecars.
const INJECTION: &str = "meshgate-inject";

pub(super) async fn wait(
    cluster: &Cluster,
    args: &UpArgs,
    state: &State,
    progress: &mut Progress,
) -> anyhow::Result<()> {
    let client = crate::client::from_kubeconfig(&cluster.kubeconfig()).await?;
    progress.waiting("the control plane's own objects");
    own_objects(&client).await?;
    if args.nodes == 0 {
        progress.done("definitions");
        return Ok(());
    }
    if args.demo {
        progress.waiting("the demo's objects to be stored");
        demo::apply(client.clone())
            .await
            .context("the demo's manifests")?;
    }
    progress.waiting("nodes");
    let nodes = Api::<Node>::all(client.clone());
    for index in 0..args.nodes {
        let name = node_name(index);
        reach(
            &client,
            &format!("node {name}"),
            await_condition(nodes.clone(), &name, node_is_ready()),
        )
        .await?;
    }
    progress.done("nodes");
    let edge = reachable(state.http)?;
    progress.waiting("the edge");
    deployment(&client, names::SYSTEM_NAMESPACE, "edge").await?;
    // Readiness says that it accepts; a request shows that the host's socket leads there.
    client::status(edge, "meshgate.invalid").await?;
    progress.done("edge");
    if args.demo {
        progress.waiting("the shop");
        for name in demo::DEPLOYMENTS {
            deployment(&client, demo::NAMESPACE, name).await?;
        }
        tokio::time::timeout(STEP_MAX, first_answer(edge))
            .await
            .context("the shop does not answer through the edge; `kubectl -n shop get pods` shows its pods")??;
        progress.done("shop");
    }
    Ok(())
}

/// What applications rely on from their first object on: our kinds, a class for Ingresses, sidecars for pods.
async fn own_objects(client: &Client) -> anyhow::Result<()> {
    let definitions = Api::<CustomResourceDefinition>::all(client.clone());
    let definitions = try_join_all(
        DEFINITIONS.map(|name| await_condition(definitions.clone(), name, is_crd_established())),
    );
    let classes = Api::<IngressClass>::all(client.clone());
    let injections = Api::<MutatingWebhookConfiguration>::all(client.clone());
    let all = async {
        tokio::try_join!(
            definitions,
            await_condition(classes, names::INGRESS_CLASS, is_there()),
            await_condition(injections, INJECTION, is_there()),
        )
        .map(Some)
    };
    reach(client, "the control plane's own objects", all).await
}

fn reachable(address: Option<SocketAddr>) -> anyhow::Result<SocketAddr> {
    address
        .map(host::reachable)
        .context("a cluster with nodes has an edge")
}

async fn first_answer(edge: SocketAddr) -> anyhow::Result<()> {
    while client::status(edge, demo::HOST).await? != 200 {
        tokio::time::sleep(ASK_AGAIN).await;
    }
    Ok(())
}

async fn deployment(client: &Client, namespace: &str, name: &str) -> anyhow::Result<()> {
    let api = Api::<Deployment>::namespaced(client.clone(), namespace);
    let what = format!("deployment {namespace}/{name}");
    reach(
        client,
        &what,
        await_condition(api, name, deployment_is_available()),
    )
    .await
}

/// Waits for a condition, or says what pods complain of.
async fn reach<T>(
    client: &Client,
    what: &str,
    condition: impl Future<Output = Result<Option<T>, kube::runtime::wait::Error>>,
) -> anyhow::Result<()> {
    match tokio::time::timeout(STEP_MAX, condition).await {
        Ok(result) => result
            .map(drop)
            .with_context(|| format!("cannot wait for {what}")),
        Err(_) => bail!(
            "{what}: not ready after {} s{}",
            STEP_MAX.as_secs(),
            complaints(client).await
        ),
    }
}

/// One line for each pod that waits for something.
async fn complaints(client: &Client) -> String {
    let Ok(pods) = Api::<Pod>::all(client.clone())
        .list(&Default::default())
        .await
    else {
        return String::new();
    };
    let mut text = String::new();
    for pod in pods {
        let name = format!(
            "{}/{}",
            pod.metadata.namespace.unwrap_or_default(),
            pod.metadata.name.unwrap_or_default()
        );
        let Some(status) = pod.status else { continue };
        let containers = status
            .init_container_statuses
            .into_iter()
            .chain(status.container_statuses)
            .flatten();
        for waiting in containers.filter_map(|c| c.state?.waiting) {
            text += &format!(
                "\n  pod {name}: {} {}",
                waiting.reason.unwrap_or_default(),
                waiting.message.unwrap_or_default()
            );
        }
        for condition in status
            .conditions
            .into_iter()
            .flatten()
            .filter(|c| c.status == "False")
        {
            if let Some(message) = condition.message {
                text += &format!("\n  pod {name}: {message}");
            }
        }
    }
    text
}

fn is_there<T>() -> impl Condition<T> {
    |object: Option<&T>| object.is_some()
}

fn node_is_ready() -> impl Condition<Node> {
    |node: Option<&Node>| {
        let conditions = node.and_then(|n| n.status.as_ref()?.conditions.as_ref());
        conditions.is_some_and(|all| all.iter().any(|c| c.type_ == "Ready" && c.status == "True"))
    }
}

fn deployment_is_available() -> impl Condition<Deployment> {
    |deployment: Option<&Deployment>| {
        let Some((spec, status)) =
            deployment.and_then(|d| Some((d.spec.as_ref()?, d.status.as_ref()?)))
        else {
            return false;
        };
        let generation = deployment.and_then(|d| d.metadata.generation);
        status.observed_generation == generation && status.available_replicas >= spec.replicas
    }
}
