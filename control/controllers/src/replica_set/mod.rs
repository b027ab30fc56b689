//! ReplicaSet: so many pods of a template, no more and no less.

pub(crate) mod plan;

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{
    ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams, Preconditions,
};
use meshgate_api::client::{
    EventKind, Key, Next, Queue, Recorder, Reference, is_namespace_terminating, is_not_found,
    message,
};
use serde_json::{Value, json};

use crate::context::Context;
use crate::freshness::Freshness;
use crate::objects::{Pod, ReplicaSet};
use crate::ownership::{
    Claims, adopt_patch, claim, controller_of, controller_reference, release_patch, selector,
};
use crate::pods::is_active;
use plan::{Failure, Plan, plan, status};

/// Keys worked on at once.
const WORKERS: usize = 8;
/// First batch of creations; each batch that succeeds doubles the next, so that a template that can never be created
/// costs one refused request and not hundreds.
const FIRST_BATCH: usize = 1;

/// The ReplicaSet controller.
pub(crate) struct Controller {
    context: Arc<Context>,
    queue: Queue<Key>,
    recorder: Recorder,
    written: Freshness,
}

impl Controller {
    pub(crate) fn new(context: &Arc<Context>) -> Self {
        let queue = Queue::default();
        let keys = queue.clone();
        context
            .replica_sets
            .on_change(move |change| keys.add(Key::of(&**change.object())));
        let keys = queue.clone();
        let replica_sets = context.replica_sets.clone();
        context.pods.on_change(move |change| {
            for pod in change.states() {
                match controller_of(&pod.metadata) {
                    Some(owner) if owner.kind == "ReplicaSet" => {
                        keys.add(Key::new(
                            pod.metadata.namespace.clone().unwrap_or_default(),
                            owner.name.clone(),
                        ));
                    }
                    Some(_) => {}
                    // An orphan may be anyone's.
                    None => {
                        for replica_set in replica_sets
                            .in_namespace(pod.metadata.namespace.as_deref().unwrap_or(""))
                        {
                            if selector(&replica_set.spec.selector).is_ok_and(|s| matches(&s, pod))
                            {
                                keys.add(Key::of(&*replica_set));
                            }
                        }
                    }
                }
            }
        });
        Self {
            recorder: context.recorder.named("replicaset-controller"),
            context: Arc::clone(context),
            queue,
            written: Freshness::default(),
        }
    }

    pub(crate) async fn run(&self) {
        tokio::join!(
            self.context.replica_sets.synced(),
            self.context.pods.synced()
        );
        self.queue
            .work("replicaset", WORKERS, async |key: &Key| {
                self.reconcile(key).await
            })
            .await;
    }

    async fn reconcile(&self, key: &Key) -> Result<Next, kube::Error> {
        let Some(replica_set) = self.context.replica_sets.get(key) else {
            return Ok(Next::Event);
        };
        if let Some(wait) = self.written.wait(key, &self.context.pods) {
            return Ok(Next::After(wait));
        }
        let selector = match selector(&replica_set.spec.selector) {
            Ok(selector) => selector,
            Err(error) => {
                tracing::warn!(%key, %error, "left alone");
                return Ok(Next::Event);
            }
        };
        let candidates = self.context.pods.in_namespace(&key.namespace);
        let Claims {
            mut owned,
            adopt,
            release,
        } = claim(&replica_set.metadata, &selector, candidates);
        if !adopt.is_empty() || !release.is_empty() {
            self.reown(key, &replica_set, &adopt, &release).await?;
            owned.extend(adopt);
        }
        let now = Timestamp::now();
        let plan = plan(&replica_set, &owned, &self.crowd(&replica_set), now);
        let failure = self.carry_out(key, &replica_set, &plan).await;
        let problem = failure.as_ref().map(|(failure, _)| failure);
        self.write_status(
            key,
            &replica_set,
            status(&replica_set, &owned, problem, now),
        )
        .await?;
        match failure {
            Some((_, error)) => Err(error),
            None => Ok(plan.look_again.map_or(Next::Event, Next::After)),
        }
    }

    /// Active pods by node, of all ReplicaSets of the same controller.
    fn crowd(&self, replica_set: &ReplicaSet) -> HashMap<String, usize> {
        let namespace = replica_set
            .metadata
            .namespace
            .as_deref()
            .unwrap_or_default();
        let controller = controller_of(&replica_set.metadata).map(|owner| owner.uid.as_str());
        let siblings: Vec<String> = match controller {
            None => replica_set.metadata.uid.iter().cloned().collect(),
            Some(_) => {
                let all = self.context.replica_sets.in_namespace(namespace);
                let same = all.iter().filter(|other| {
                    controller_of(&other.metadata).map(|o| o.uid.as_str()) == controller
                });
                same.filter_map(|sibling| sibling.metadata.uid.clone())
                    .collect()
            }
        };
        let mut crowd = HashMap::new();
        for pod in self.context.pods.in_namespace(namespace) {
            let ours =
                controller_of(&pod.metadata).is_some_and(|owner| siblings.contains(&owner.uid));
            if let Some(node) = pod
                .spec
                .node_name
                .as_ref()
                .filter(|_| ours && is_active(&pod))
            {
                *crowd.entry(node.clone()).or_default() += 1;
            }
        }
        crowd
    }

    /// Adopts and releases. Before the first adoption the ReplicaSet is read afresh: one that was just deleted or
    /// replaced must not take over anything.
    async fn reown(
        &self,
        key: &Key,
        replica_set: &ReplicaSet,
        adopt: &[Arc<Pod>],
        release: &[Arc<Pod>],
    ) -> Result<(), kube::Error> {
        let pods = self.pods(&key.namespace);
        if !adopt.is_empty() {
            let api = Api::<ReplicaSet>::namespaced(self.context.client.clone(), &key.namespace);
            let fresh = api.get(&key.name).await?;
            if fresh.metadata.uid != replica_set.metadata.uid
                || fresh.metadata.deletion_timestamp.is_some()
            {
                return Ok(());
            }
        }
        let reference = controller_reference(replica_set);
        let owner_uid = replica_set.metadata.uid.as_deref().unwrap_or_default();
        let adoptions = adopt
            .iter()
            .map(|pod| (pod, adopt_patch(&reference, pod.metadata.uid.as_ref())));
        let releases = release
            .iter()
            .map(|pod| (pod, release_patch(owner_uid, pod.metadata.uid.as_ref())));
        for (pod, patch) in adoptions.chain(releases) {
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            match pods
                .patch(name, &PatchParams::default(), &Patch::Strategic(&patch))
                .await
            {
                Ok(written) => self.written.wrote(key, &written.metadata),
                Err(error) if is_not_found(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Creates in growing batches and deletes. The first failure ends it: the rest follows with the next attempt.
    async fn carry_out(
        &self,
        key: &Key,
        replica_set: &ReplicaSet,
        plan: &Plan,
    ) -> Option<(Failure, kube::Error)> {
        if plan.create > 0 {
            let pod = new_pod(replica_set);
            let (mut left, mut batch) = (plan.create, FIRST_BATCH);
            while left > 0 {
                let now = batch.min(left);
                let created = futures::future::join_all(
                    (0..now).map(|_| self.create(key, replica_set, &pod)),
                )
                .await;
                if let Some(error) = created.into_iter().find_map(Result::err) {
                    // Nothing can be created in a namespace that goes away, and nobody has to know.
                    if is_namespace_terminating(&error) {
                        return None;
                    }
                    return Some((
                        Failure {
                            reason: "FailedCreate",
                            message: message(&error),
                        },
                        error,
                    ));
                }
                left -= now;
                batch *= 2;
            }
        }
        let deletions = plan
            .delete
            .iter()
            .map(|pod| self.delete(key, replica_set, pod));
        let failed = futures::future::join_all(deletions)
            .await
            .into_iter()
            .find_map(Result::err);
        failed.map(|error| {
            (
                Failure {
                    reason: "FailedDelete",
                    message: message(&error),
                },
                error,
            )
        })
    }

    async fn create(
        &self,
        key: &Key,
        replica_set: &ReplicaSet,
        pod: &DynamicObject,
    ) -> Result<(), kube::Error> {
        let about = Reference::of(replica_set);
        match self
            .pods(&key.namespace)
            .create(&PostParams::default(), pod)
            .await
        {
            Ok(created) => {
                self.written.wrote(key, &created.metadata);
                let name = created.metadata.name.unwrap_or_default();
                self.recorder.record(
                    about,
                    EventKind::Normal,
                    "SuccessfulCreate",
                    format!("Created pod: {name}"),
                );
                Ok(())
            }
            Err(error) => {
                if !is_namespace_terminating(&error) {
                    let text = format!("Error creating: {}", message(&error));
                    self.recorder
                        .record(about, EventKind::Warning, "FailedCreate", text);
                }
                Err(error)
            }
        }
    }

    async fn delete(
        &self,
        key: &Key,
        replica_set: &ReplicaSet,
        pod: &Pod,
    ) -> Result<(), kube::Error> {
        let about = Reference::of(replica_set);
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let params = DeleteParams {
            preconditions: Some(Preconditions {
                uid: pod.metadata.uid.clone(),
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        match self.pods(&key.namespace).delete(name, &params).await {
            Ok(answer) => {
                if let Some(deleted) = answer.left() {
                    self.written.wrote(key, &deleted.metadata);
                }
                self.recorder.record(
                    about,
                    EventKind::Normal,
                    "SuccessfulDelete",
                    format!("Deleted pod: {name}"),
                );
                Ok(())
            }
            Err(error) if is_not_found(&error) => Ok(()),
            Err(error) => {
                let text = format!("Error deleting: {}", message(&error));
                self.recorder
                    .record(about, EventKind::Warning, "FailedDelete", text);
                Err(error)
            }
        }
    }

    async fn write_status(
        &self,
        key: &Key,
        replica_set: &ReplicaSet,
        status: crate::objects::ReplicaSetStatus,
    ) -> Result<(), kube::Error> {
        if status == replica_set.status {
            return Ok(());
        }
        let api = Api::<ReplicaSet>::namespaced(self.context.client.clone(), &key.namespace);
        let patch = json!({"metadata": {"uid": replica_set.metadata.uid}, "status": status});
        match api
            .patch_status(&key.name, &PatchParams::default(), &Patch::Merge(&patch))
            .await
        {
            Err(error) if !is_not_found(&error) => Err(error),
            _ => Ok(()),
        }
    }

    fn pods(&self, namespace: &str) -> Api<DynamicObject> {
        Api::namespaced_with(
            self.context.client.clone(),
            namespace,
            &ApiResource::erase::<Pod>(&()),
        )
    }
}

fn matches(selector: &kube::core::Selector, pod: &Pod) -> bool {
    use kube::core::SelectorExt;
    pod.metadata
        .labels
        .as_ref()
        .is_some_and(|labels| selector.matches(labels))
}

/// The pod that the template describes.
fn new_pod(replica_set: &ReplicaSet) -> DynamicObject {
    let template = &replica_set.spec.template;
    let name = replica_set.metadata.name.as_deref().unwrap_or_default();
    let mut metadata = json!({"generateName": format!("{name}-"), "ownerReferences": [controller_reference(replica_set)]});
    for field in ["labels", "annotations", "finalizers"] {
        match &template["metadata"][field] {
            Value::Null => {}
            value => metadata[field] = value.clone(),
        }
    }
    let mut pod = DynamicObject::new("", &ApiResource::erase::<Pod>(&()))
        .data(json!({"spec": template["spec"]}));
    pod.metadata = serde_json::from_value(metadata).unwrap_or_default();
    pod
}
