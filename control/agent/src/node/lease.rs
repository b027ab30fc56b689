//! The node's Lease: a small object that says every few seconds that the node lives.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use meshgate_api::client::is_not_found;
use serde_json::{Value, json};

/// Namespace of all nodes' leases.
const NAMESPACE: &str = "kube-node-lease";
/// Life of a lease, in seconds.
const DURATION_S: i32 = 40;
/// Renewed this often: a quarter of its life.
const RENEW_EVERY: Duration = Duration::from_secs(10);
/// Wait before a failed renewal is tried again.
const RETRY: Duration = Duration::from_millis(500);

/// Renews forever.
pub(super) async fn renew(client: Client, node: String) {
    let api = Api::<Lease>::namespaced(client, NAMESPACE);
    loop {
        match renew_once(&api, &node).await {
            Ok(()) => tokio::time::sleep(RENEW_EVERY).await,
            Err(error) => {
                tracing::debug!(%error, "lease not renewed");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

async fn renew_once(api: &Api<Lease>, node: &str) -> Result<(), kube::Error> {
    let spec = spec(node);
    let patch = json!({"spec": spec});
    match api
        .patch(node, &PatchParams::default(), &Patch::Merge(&patch))
        .await
    {
        Err(error) if is_not_found(&error) => {
            let lease = json!({"metadata": {"name": node, "namespace": NAMESPACE}, "spec": spec});
            let lease: Lease = serde_json::from_value(lease).map_err(kube::Error::SerdeError)?;
            api.create(&PostParams::default(), &lease).await.map(drop)
        }
        other => other.map(drop),
    }
}

fn spec(node: &str) -> Value {
    json!({
        "holderIdentity": node,
        "leaseDurationSeconds": DURATION_S,
        "renewTime": Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string(),
    })
}
