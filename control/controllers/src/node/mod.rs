//! Nodes: alive as long as their Lease is renewed; tainted by what their conditions say; their pods evicted or
//! cleaned up.

mod eviction;
mod health;
mod orphans;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{Patch, PatchParams};
use meshgate_api::client::{EventKind, Key, Next, Queue, Recorder, Reference, is_not_found};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::context::Context;
use crate::objects::{Node, Pod};
use crate::pods::is_ready;

pub(crate) use eviction::Controller as Eviction;
pub(crate) use orphans::Controller as Orphans;

/// Namespace of the Leases that nodes renew.
pub(crate) const LEASES: &str = "kube-node-lease";
/// Nodes worked on at once.
const WORKERS: usize = 4;

/// The node lifecycle controller.
pub(crate) struct Controller {
    context: Arc<Context>,
    queue: Queue<Key>,
    recorder: Recorder,
    /// What was seen last of each node's Lease, and when by our own clock: nodes' clocks may differ.
    seen: Mutex<HashMap<String, Seen>>,
}

#[derive(Debug, Clone)]
struct Seen {
    renewed: Option<MicroTime>,
    at: Instant,
}

impl Controller {
    pub(crate) fn new(context: &Arc<Context>) -> Self {
        let queue = Queue::default();
        let keys = queue.clone();
        context
            .nodes
            .on_change(move |change| keys.add(Key::of(&**change.object())));
        let keys = queue.clone();
        context.leases.on_change(move |change| {
            keys.add(Key::cluster(
                change.object().metadata.name.clone().unwrap_or_default(),
            ));
        });
        Self {
            recorder: context.recorder.named("node-controller"),
            context: Arc::clone(context),
            queue,
            seen: Mutex::default(),
        }
    }

    pub(crate) async fn run(&self) {
        tokio::join!(
            self.context.nodes.synced(),
            self.context.leases.synced(),
            self.context.pods.synced()
        );
        self.queue
            .work("node-lifecycle", WORKERS, async |key: &Key| {
                self.reconcile(key).await
            })
            .await;
    }

    async fn reconcile(&self, key: &Key) -> Result<Next, kube::Error> {
        let Some(node) = self.context.nodes.get(key) else {
            self.seen
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .remove(&key.name);
            return Ok(Next::Event);
        };
        let silent = self.look(&key.name).at.elapsed();
        let left = self
            .context
            .options
            .node_grace
            .checked_sub(silent)
            .filter(|left| !left.is_zero());
        let now = Timestamp::now();
        let mut version = node.metadata.resource_version.clone();
        if left.is_none()
            && let Some(written) = self.declare_lost(key, &node, now).await?
        {
            version = Some(written);
        }
        if let Some(taints) = health::taints(&node, left.is_none(), now) {
            let patch = json!({
                "metadata": {"resourceVersion": version}, "spec": {"taints": taints},
            });
            self.patch(key, &patch).await?;
        }
        if health::is_unready(&node) || left.is_none() {
            self.mark_pods(&key.name, now).await?;
        }
        Ok(left.map_or(Next::Event, Next::After))
    }

    /// Looks at the node's Lease; a renewal sets the clock back.
    fn look(&self, name: &str) -> Seen {
        let lease = self.context.leases.get(&Key::new(LEASES, name));
        let renewed = lease.and_then(|lease| lease.spec.renew_time.clone());
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = seen.entry(name.to_owned()).or_insert_with(|| Seen {
            renewed: None,
            at: Instant::now(),
        });
        if renewed != entry.renewed {
            *entry = Seen {
                renewed,
                at: Instant::now(),
            };
        }
        entry.clone()
    }

    /// Says in its conditions that the node is lost, unless they do; the node's version after that.
    async fn declare_lost(
        &self,
        key: &Key,
        node: &Node,
        now: Timestamp,
    ) -> Result<Option<String>, kube::Error> {
        let Some(conditions) = health::lost(node, now) else {
            return Ok(None);
        };
        let api = Api::<Node>::all(self.context.client.clone());
        let patch = json!({"status": {"conditions": conditions}});
        let written = api
            .patch_status(
                &key.name,
                &PatchParams::default(),
                &Patch::Strategic(&patch),
            )
            .await?;
        tracing::warn!(node = key.name, "node no longer renews its lease");
        let text = format!("Node {} status is now: NodeNotReady", key.name);
        self.recorder
            .record(Reference::of(node), EventKind::Normal, "NodeNotReady", text);
        Ok(written.metadata.resource_version)
    }

    async fn patch(&self, key: &Key, patch: &Value) -> Result<(), kube::Error> {
        let api = Api::<Node>::all(self.context.client.clone());
        match api
            .patch(&key.name, &PatchParams::default(), &Patch::Merge(patch))
            .await
        {
            Err(error) if !is_not_found(&error) => Err(error),
            _ => Ok(()),
        }
    }

    /// The pods of a node that is not ready cannot be: Services stop sending to them.
    async fn mark_pods(&self, node: &str, now: Timestamp) -> Result<(), kube::Error> {
        let pods = self.context.pods.list();
        for pod in pods
            .iter()
            .filter(|pod| pod.spec.node_name.as_deref() == Some(node) && is_ready(pod))
        {
            let key = Key::of(&**pod);
            let api = Api::<Pod>::namespaced(self.context.client.clone(), &key.namespace);
            let patch = health::pod_not_ready(now);
            match api
                .patch_status(
                    &key.name,
                    &PatchParams::default(),
                    &Patch::Strategic(&patch),
                )
                .await
            {
                Err(error) if !is_not_found(&error) => return Err(error),
                _ => {}
            }
            self.recorder.record(
                Reference::of(&**pod),
                EventKind::Warning,
                "NodeNotReady",
                "Node is not ready",
            );
        }
        Ok(())
    }
}
