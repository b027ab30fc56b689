//! Deployment: keeps ReplicaSets of each template it ever had, and moves pods from the old ones to the new one.

mod plan;
mod revision;
mod rollout;
mod scale;
#[cfg(test)]
mod simulation;
mod status;

use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{
    ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams, Preconditions,
};
use kube::core::Selector;
use meshgate_api::client::{
    EventKind, Key, Next, Queue, Recorder, Reference, is_already_exists, is_namespace_terminating,
    is_not_found, message,
};
use serde_json::json;

use crate::context::Context;
use crate::freshness::Freshness;
use crate::objects::{Deployment, DeploymentStatus, Pod, ReplicaSet};
use crate::ownership::{
    Claims, adopt_patch, claim, controller_of, controller_reference, release_patch, selector,
};
use plan::{Change, NewReplicaSet, Plan, plan};
use revision::same_template;

/// Keys worked on at once.
const WORKERS: usize = 4;

/// The Deployment controller.
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
            .deployments
            .on_change(move |change| keys.add(Key::of(&**change.object())));
        let keys = queue.clone();
        let deployments = context.deployments.clone();
        context.replica_sets.on_change(move |change| {
            for replica_set in change.states() {
                let namespace = replica_set
                    .metadata
                    .namespace
                    .as_deref()
                    .unwrap_or_default();
                match controller_of(&replica_set.metadata) {
                    Some(owner) if owner.kind == "Deployment" => {
                        keys.add(Key::new(namespace, owner.name.clone()))
                    }
                    Some(_) => {}
                    None => {
                        for deployment in deployments.in_namespace(namespace) {
                            keys.add(Key::of(&*deployment));
                        }
                    }
                }
            }
        });
        // Recreate waits for the old pods to end; nothing else here depends on single pods.
        let keys = queue.clone();
        let replica_sets = context.replica_sets.clone();
        context.pods.on_change(move |change| {
            let pod = change.object();
            let ended = matches!(change, meshgate_api::client::Change::Deleted(_))
                || crate::pods::is_finished(pod);
            let Some(owner) =
                controller_of(&pod.metadata).filter(|owner| ended && owner.kind == "ReplicaSet")
            else {
                return;
            };
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            let replica_set = replica_sets.get(&Key::new(namespace, owner.name.clone()));
            if let Some(owner) = replica_set
                .as_ref()
                .and_then(|replica_set| controller_of(&replica_set.metadata))
            {
                keys.add(Key::new(namespace, owner.name.clone()));
            }
        });
        Self {
            recorder: context.recorder.named("deployment-controller"),
            context: Arc::clone(context),
            queue,
            written: Freshness::default(),
        }
    }

    pub(crate) async fn run(&self) {
        let context = &self.context;
        tokio::join!(
            context.deployments.synced(),
            context.replica_sets.synced(),
            context.pods.synced()
        );
        self.queue
            .work("deployment", WORKERS, async |key: &Key| {
                self.reconcile(key).await
            })
            .await;
    }

    async fn reconcile(&self, key: &Key) -> Result<Next, kube::Error> {
        let Some(deployment) = self.context.deployments.get(key) else {
            return Ok(Next::Event);
        };
        if let Some(wait) = self.written.wait(key, &self.context.replica_sets) {
            return Ok(Next::After(wait));
        }
        let selector = match selector(&deployment.spec.selector) {
            Ok(selector) => selector,
            Err(error) => {
                let text = format!("This deployment cannot be acted on: {error}.");
                self.recorder.record(
                    Reference::of(&*deployment),
                    EventKind::Warning,
                    "SelectingAll",
                    text,
                );
                return Ok(Next::Event);
            }
        };
        let replica_sets = self.owned(key, &deployment, &selector).await?;
        let pods = self.pods_of(key, &replica_sets);
        let plan = plan(&deployment, &replica_sets, &pods, Timestamp::now());
        self.carry_out(key, &deployment, &plan).await?;
        self.write_status(key, &deployment, &plan.status).await?;
        Ok(plan.look_again.map_or(Next::Event, Next::After))
    }

    /// The Deployment's ReplicaSets, orphans adopted and strangers released first.
    async fn owned(
        &self,
        key: &Key,
        deployment: &Deployment,
        selector: &Selector,
    ) -> Result<Vec<Arc<ReplicaSet>>, kube::Error> {
        let candidates = self.context.replica_sets.in_namespace(&key.namespace);
        let Claims {
            mut owned,
            adopt,
            release,
        } = claim(&deployment.metadata, selector, candidates);
        let api = self.replica_sets(&key.namespace);
        if !adopt.is_empty() {
            // Read afresh: a Deployment that was just deleted must not take over anything.
            let deployments =
                Api::<Deployment>::namespaced(self.context.client.clone(), &key.namespace);
            let fresh = deployments.get(&key.name).await?;
            if fresh.metadata.uid != deployment.metadata.uid
                || fresh.metadata.deletion_timestamp.is_some()
            {
                return Ok(owned);
            }
        }
        let reference = controller_reference(deployment);
        let uid = deployment.metadata.uid.as_deref().unwrap_or_default();
        let adoptions = adopt
            .iter()
            .map(|rs| (rs, adopt_patch(&reference, rs.metadata.uid.as_ref())));
        let releases = release
            .iter()
            .map(|rs| (rs, release_patch(uid, rs.metadata.uid.as_ref())));
        for (replica_set, patch) in adoptions.chain(releases) {
            let name = replica_set.metadata.name.as_deref().unwrap_or_default();
            let written = api
                .patch(name, &PatchParams::default(), &Patch::Strategic(&patch))
                .await?;
            self.written.wrote(key, &written.metadata);
        }
        owned.extend(adopt);
        Ok(owned)
    }

    fn pods_of(&self, key: &Key, replica_sets: &[Arc<ReplicaSet>]) -> Vec<Arc<Pod>> {
        let mut pods = self.context.pods.in_namespace(&key.namespace);
        let is_owner = |uid: &str| {
            replica_sets
                .iter()
                .any(|rs| rs.metadata.uid.as_deref() == Some(uid))
        };
        pods.retain(|pod| controller_of(&pod.metadata).is_some_and(|owner| is_owner(&owner.uid)));
        pods
    }

    async fn carry_out(
        &self,
        key: &Key,
        deployment: &Deployment,
        plan: &Plan,
    ) -> Result<(), kube::Error> {
        let api = self.replica_sets(&key.namespace);
        let about = || Reference::of(deployment);
        for change in &plan.changes {
            match change {
                Change::SetRevision(revision) => {
                    let patch = json!({"metadata": {"uid": deployment.metadata.uid,
                        "annotations": {revision::REVISION: revision.to_string()}}});
                    let deployments =
                        Api::<Deployment>::namespaced(self.context.client.clone(), &key.namespace);
                    deployments
                        .patch(&key.name, &PatchParams::default(), &Patch::Merge(&patch))
                        .await?;
                }
                Change::Create(new) => self.create(key, deployment, new).await?,
                Change::Update(update) => {
                    let patch = update.patch();
                    let written = api
                        .patch(&update.name, &PatchParams::default(), &Patch::Merge(&patch))
                        .await?;
                    self.written.wrote(key, &written.metadata);
                    if let Some(text) = update.scaled() {
                        self.recorder
                            .record(about(), EventKind::Normal, "ScalingReplicaSet", text);
                    }
                }
                Change::Delete {
                    name,
                    uid,
                    resource_version,
                } => {
                    let params = DeleteParams {
                        preconditions: Some(Preconditions {
                            uid: Some(uid.clone()),
                            resource_version: Some(resource_version.clone()),
                        }),
                        ..DeleteParams::background()
                    };
                    match api.delete(name, &params).await {
                        Err(error) if !is_not_found(&error) => return Err(error),
                        _ => {}
                    }
                }
            }
        }
        Ok(())
    }

    /// Creates the new ReplicaSet. A foreign one of that name means that the hash collides: the Deployment counts
    /// collisions, and the next attempt takes another name.
    async fn create(
        &self,
        key: &Key,
        deployment: &Deployment,
        new: &NewReplicaSet,
    ) -> Result<(), kube::Error> {
        let api = self.replica_sets(&key.namespace);
        let resource = ApiResource::erase::<ReplicaSet>(&());
        let mut object = DynamicObject::new(&new.name, &resource).data(json!({"spec": new.spec}));
        object.metadata =
            serde_json::from_value(new.metadata(deployment)).map_err(kube::Error::SerdeError)?;
        match api.create(&PostParams::default(), &object).await {
            Ok(created) => {
                self.written.wrote(key, &created.metadata);
                if new.replicas > 0 {
                    let text = format!(
                        "Scaled up replica set {} from 0 to {}",
                        new.name, new.replicas
                    );
                    self.recorder.record(
                        Reference::of(deployment),
                        EventKind::Normal,
                        "ScalingReplicaSet",
                        text,
                    );
                }
                Ok(())
            }
            Err(error) if is_already_exists(&error) => {
                let typed =
                    Api::<ReplicaSet>::namespaced(self.context.client.clone(), &key.namespace);
                let existing = typed.get(&new.name).await?;
                let is_ours = controller_of(&existing.metadata).map(|owner| &owner.uid)
                    == deployment.metadata.uid.as_ref();
                if is_ours && same_template(&existing.spec.template, &deployment.spec.template) {
                    // Created by an earlier attempt whose answer was lost; the watch will show it.
                    self.written.wrote(key, &existing.metadata);
                    return Ok(());
                }
                let collisions = deployment.status.collision_count.unwrap_or(0) + 1;
                let status = DeploymentStatus {
                    collision_count: Some(collisions),
                    ..deployment.status.clone()
                };
                self.write_status(key, deployment, &status).await?;
                Err(error)
            }
            Err(error) if is_namespace_terminating(&error) => Ok(()),
            Err(error) => {
                let text = format!(
                    "Failed to create new replica set {}: {}",
                    new.name,
                    message(&error)
                );
                let about = Reference::of(deployment);
                self.recorder
                    .record(about, EventKind::Warning, "ReplicaSetCreateError", text);
                Err(error)
            }
        }
    }

    async fn write_status(
        &self,
        key: &Key,
        deployment: &Deployment,
        status: &DeploymentStatus,
    ) -> Result<(), kube::Error> {
        if *status == deployment.status {
            return Ok(());
        }
        let api = Api::<Deployment>::namespaced(self.context.client.clone(), &key.namespace);
        let patch = json!({"metadata": {"uid": deployment.metadata.uid}, "status": status});
        match api
            .patch_status(&key.name, &PatchParams::default(), &Patch::Merge(&patch))
            .await
        {
            Err(error) if !is_not_found(&error) => Err(error),
            _ => Ok(()),
        }
    }

    fn replica_sets(&self, namespace: &str) -> Api<DynamicObject> {
        Api::namespaced_with(
            self.context.client.clone(),
            namespace,
            &ApiResource::erase::<ReplicaSet>(&()),
        )
    }
}
