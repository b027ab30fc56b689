//! Pods bound to a node that is gone: nobody will ever end them, so they are removed.

use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use meshgate_api::client::{Change, Key, Next, Queue, is_conflict, is_not_found};
use serde_json::json;

use crate::conditions::whole_seconds;
use crate::context::Context;
use crate::objects::{Node, Pod};
use crate::pods::is_finished;

/// Removals under way at once.
const WORKERS: usize = 4;

/// The controller that removes orphaned pods.
pub(crate) struct Controller {
    context: Arc<Context>,
    queue: Queue<Key>,
}

impl Controller {
    pub(crate) fn new(context: &Arc<Context>) -> Self {
        let queue = Queue::default();
        let keys = queue.clone();
        let nodes = context.nodes.clone();
        let grace = context.options.node_grace;
        context.pods.on_change(move |change| {
            let pod = change.object();
            let node = pod
                .spec
                .node_name
                .as_deref()
                .filter(|_| !matches!(change, Change::Deleted(_)));
            // The pod's watch may be ahead of the nodes': a node that is only new gets its time.
            if node.is_some_and(|node| nodes.get(&Key::cluster(node)).is_none()) {
                keys.add_after(Key::of(&**pod), grace);
            }
        });
        let keys = queue.clone();
        let pods = context.pods.clone();
        context.nodes.on_change(move |change| {
            if let Change::Deleted(node) = change {
                let on_it = |pod: &Pod| pod.spec.node_name == node.metadata.name;
                for pod in pods.list().iter().filter(|pod| on_it(pod)) {
                    keys.add_after(Key::of(&**pod), grace);
                }
            }
        });
        Self {
            context: Arc::clone(context),
            queue,
        }
    }

    pub(crate) async fn run(&self) {
        tokio::join!(self.context.nodes.synced(), self.context.pods.synced());
        self.queue
            .work("pod-gc", WORKERS, async |key: &Key| {
                self.reconcile(key).await
            })
            .await;
    }

    async fn reconcile(&self, key: &Key) -> Result<Next, kube::Error> {
        let Some(pod) = self.context.pods.get(key) else {
            return Ok(Next::Event);
        };
        let Some(name) = pod.spec.node_name.clone() else {
            return Ok(Next::Event);
        };
        if self
            .context
            .nodes
            .get(&Key::cluster(name.clone()))
            .is_some()
        {
            return Ok(Next::Event);
        }
        // The cache may be wrong, and this cannot be undone.
        match Api::<Node>::all(self.context.client.clone())
            .get(&name)
            .await
        {
            Err(error) if is_not_found(&error) => {}
            Err(error) => return Err(error),
            Ok(_) => return Ok(Next::Event),
        }
        self.remove(key, &pod).await?;
        tracing::info!(pod = %key, node = name, "removed a pod of a node that is gone");
        Ok(Next::Event)
    }

    async fn remove(&self, key: &Key, pod: &Pod) -> Result<(), kube::Error> {
        let api = Api::<Pod>::namespaced(self.context.client.clone(), &key.namespace);
        let gone = |error: &kube::Error| is_not_found(error) || is_conflict(error);
        if !is_finished(pod) {
            let patch = json!({"metadata": {"uid": pod.metadata.uid}, "status": {"phase": "Failed", "conditions": [{
                "type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC",
                "message": "PodGC: node no longer exists", "lastTransitionTime": whole_seconds(Timestamp::now()),
            }]}});
            match api
                .patch_status(
                    &key.name,
                    &PatchParams::default(),
                    &Patch::Strategic(&patch),
                )
                .await
            {
                Err(error) if gone(&error) => return Ok(()),
                written => written?,
            };
        }
        let preconditions = Preconditions {
            uid: pod.metadata.uid.clone(),
            resource_version: None,
        };
        let params = DeleteParams {
            preconditions: Some(preconditions),
            ..DeleteParams::default()
        }
        .grace_period(0);
        match api.delete(&key.name, &params).await {
            Err(error) if !gone(&error) => Err(error),
            _ => Ok(()),
        }
    }
}
