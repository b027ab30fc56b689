//! The node itself in the API: its Node object and its Lease.

mod facts;
mod lease;
mod object;

pub(crate) use facts::Facts;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Patch, PatchParams, PostParams};
use kube::runtime::watcher;
use kube::{Api, Client};
use meshgate_api::client::{Cache, Key, is_already_exists, is_not_found};
use serde_json::Value;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Wait before a failed write is tried again, doubling.
const RETRY_MIN: Duration = Duration::from_millis(50);
/// Ceiling of that wait.
const RETRY_MAX: Duration = Duration::from_secs(5);
/// A status that changes nothing is written this often, as a sign of life for those who do not read leases.
const REPORT_EVERY: Duration = Duration::from_secs(300);

/// Keeps the Node registered and its status true, and the Lease renewed, until `shutdown`.
pub(crate) async fn run(client: Client, facts: Facts, shutdown: CancellationToken) {
    let lease = lease::renew(client.clone(), facts.name.clone());
    let node = keep(client, facts);
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = lease => {}
        () = node => {}
    }
}

async fn keep(client: Client, facts: Facts) {
    let api = Api::<Node>::all(client);
    let cache = Cache::<Node>::default();
    let changed = Arc::new(Notify::new());
    let told = Arc::clone(&changed);
    cache.on_change(move |_| told.notify_one());
    let config = watcher::Config::default().fields(&format!("metadata.name={}", facts.name));
    let watch = cache.run(api.clone(), config);
    let report = async {
        let mut wait = RETRY_MIN;
        let mut registered = false;
        loop {
            if let Err(error) = register(&api, &facts).await {
                tracing::debug!(%error, "node not registered yet");
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(RETRY_MAX);
                continue;
            }
            if !registered {
                registered = true;
                tracing::info!(node = facts.name, "node registered");
            }
            wait = RETRY_MIN;
            wait_for_doubt(&cache, &facts, &changed).await;
        }
    };
    tokio::select! {
        () = watch => {}
        () = report => {}
    }
}

/// Returns when the object is gone, says that the node is not ready, or has not been written for long.
async fn wait_for_doubt(cache: &Cache<Node>, facts: &Facts, changed: &Notify) {
    let key = Key::cluster(&facts.name);
    let doubted = async {
        cache.synced().await;
        loop {
            let known = cache.get(&key);
            if known.is_none_or(|node| !says_ready(&node)) {
                return;
            }
            changed.notified().await;
        }
    };
    // Own writes are seen a moment after they are made; what is in doubt then is asked again, not at once.
    changed.notified().await;
    let _ = tokio::time::timeout(REPORT_EVERY, doubted).await;
}

fn says_ready(node: &Node) -> bool {
    let conditions = node
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    conditions
        .into_iter()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// Creates the object, or brings it up to date, then its status.
async fn register(api: &Api<Node>, facts: &Facts) -> Result<(), kube::Error> {
    let wanted = object::object(facts);
    let known = match api.get_opt(&facts.name).await? {
        Some(known) => known,
        None => {
            // With its status, as kubelets do: a server that takes it over has a ready node after one write.
            let mut whole = wanted.clone();
            whole["status"] =
                object::status(facts, &Node::default(), Timestamp::now())["status"].take();
            let made = create(api, &facts.name, &whole).await?;
            if says_ready(&made) {
                return Ok(());
            }
            made
        }
    };
    if !object::is_current(&known, &wanted) {
        let patch = Patch::Merge(&wanted);
        api.patch(&facts.name, &PatchParams::default(), &patch)
            .await?;
    }
    let status = object::status(facts, &known, Timestamp::now());
    api.patch_status(
        &facts.name,
        &PatchParams::default(),
        &Patch::Strategic(&status),
    )
    .await?;
    Ok(())
}

async fn create(api: &Api<Node>, name: &str, wanted: &Value) -> Result<Node, kube::Error> {
    let node: Node = serde_json::from_value(wanted.clone()).map_err(kube::Error::SerdeError)?;
    match api.create(&PostParams::default(), &node).await {
        Ok(node) => Ok(node),
        Err(error) if is_already_exists(&error) || is_not_found(&error) => api.get(name).await,
        Err(error) => Err(error),
    }
}
