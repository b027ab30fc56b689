//! Garbage collection: objects whose owners are gone go too; foreground deletions wait for dependents, orphaning ones
//! let them go.

pub(crate) mod graph;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use kube::Api;
use kube::api::{
    DeleteParams, DynamicObject, Patch, PatchParams, Preconditions, PropagationPolicy,
};
use meshgate_api::client::{Next, Queue, is_conflict, is_not_found};
use serde_json::json;

use crate::context::Context;
use crate::inventory::{Inventory, Seen};
use graph::{Object, Owner, Propagation, Verdict};

/// Objects worked on at once.
const WORKERS: usize = 8;
/// UIDs of absent owners that are remembered: a deleted owner of many is asked for once. UIDs never come back.
const ABSENT_MAX: usize = 1024;

/// The garbage collector.
pub(crate) struct Controller {
    context: Arc<Context>,
    inventory: Arc<Inventory>,
    /// By UID.
    queue: Queue<String>,
    absent: Mutex<HashSet<String>>,
}

impl Controller {
    pub(crate) fn new(context: &Arc<Context>, inventory: &Arc<Inventory>) -> Self {
        let queue: Queue<String> = Queue::default();
        let keys = queue.clone();
        let graph = Arc::downgrade(inventory);
        inventory.on_change(move |object, seen| {
            let Some(inventory) = graph.upgrade() else {
                return;
            };
            match seen {
                Seen::Present => {
                    if object.deleting || !object.owners.is_empty() {
                        keys.add(object.uid.clone());
                    }
                }
                Seen::Gone => {
                    for dependent in inventory.graph().dependents(&object.uid) {
                        keys.add(dependent.uid.clone());
                    }
                    // An owner may have waited for it.
                    for owner in &object.owners {
                        keys.add(owner.uid.clone());
                    }
                }
            }
        });
        Self {
            context: Arc::clone(context),
            inventory: Arc::clone(inventory),
            queue,
            absent: Mutex::default(),
        }
    }

    pub(crate) async fn run(&self) {
        self.inventory.synced().await;
        self.queue
            .work("garbage", WORKERS, async |uid: &String| {
                self.collect(uid).await
            })
            .await;
    }

    async fn collect(&self, uid: &str) -> Result<Next, kube::Error> {
        let mut present = HashSet::new();
        loop {
            let (object, verdict) = {
                let graph = self.inventory.graph();
                let Some(object) = graph.get(uid).cloned() else {
                    return Ok(Next::Event);
                };
                let absent = self.absent.lock().unwrap_or_else(PoisonError::into_inner);
                (object, graph.judge(uid, &absent, &present))
            };
            match verdict {
                Verdict::LookUp(owners) => {
                    for owner in owners {
                        if self.exists(&object, &owner).await? {
                            present.insert(owner.uid);
                        } else {
                            self.remember_absent(owner.uid);
                        }
                    }
                }
                verdict => return self.carry_out(&object, verdict).await.map(|()| Next::Event),
            }
        }
    }

    /// Asks the server for an owner. One of a kind that is not served cannot be told from one that is gone for good:
    /// its dependents stay.
    async fn exists(&self, object: &Object, owner: &Owner) -> Result<bool, kube::Error> {
        let Some(kind) = self.inventory.kind(&owner.api_version, &owner.kind) else {
            return Ok(true);
        };
        let client = self.context.client.clone();
        let api: Api<DynamicObject> = if !kind.namespaced {
            Api::all_with(client, &kind.resource)
        } else if object.key.namespace.is_empty() {
            // A cluster-scoped object cannot belong to one in a namespace; the reference is a mistake, and deleting
            // for a mistake would be worse than leaving it.
            return Ok(true);
        } else {
            Api::namespaced_with(client, &object.key.namespace, &kind.resource)
        };
        match api.get_metadata(&owner.name).await {
            Ok(found) => Ok(found.metadata.uid.as_ref() == Some(&owner.uid)),
            Err(error) if is_not_found(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn remember_absent(&self, uid: String) {
        let mut absent = self.absent.lock().unwrap_or_else(PoisonError::into_inner);
        if absent.len() >= ABSENT_MAX {
            absent.clear();
        }
        absent.insert(uid);
    }

    async fn carry_out(&self, object: &Object, verdict: Verdict) -> Result<(), kube::Error> {
        match verdict {
            Verdict::Keep | Verdict::LookUp(_) => Ok(()),
            Verdict::Delete(propagation) => self.delete(object, propagation).await,
            Verdict::Disown(owners) => self.disown(object, owners.iter()).await,
            Verdict::Finish(finalizer) => self.finish(object, finalizer).await,
            Verdict::DeleteDependents(dependents) => {
                for dependent in dependents {
                    self.queue.add(dependent.uid.clone());
                }
                Ok(())
            }
            Verdict::Orphan(dependents) => {
                for dependent in dependents {
                    self.disown(&dependent, std::iter::once(&object.uid))
                        .await?;
                }
                self.finish(object, graph::ORPHAN).await
            }
        }
    }

    fn api(&self, object: &Object) -> Api<DynamicObject> {
        let client = self.context.client.clone();
        if object.key.namespace.is_empty() {
            Api::all_with(client, &object.resource)
        } else {
            Api::namespaced_with(client, &object.key.namespace, &object.resource)
        }
    }

    /// Deletes the object as it was judged: if it has changed since, the watch brings it back to be judged anew.
    async fn delete(&self, object: &Object, propagation: Propagation) -> Result<(), kube::Error> {
        let params = DeleteParams {
            propagation_policy: Some(match propagation {
                Propagation::Background => PropagationPolicy::Background,
                Propagation::Foreground => PropagationPolicy::Foreground,
                Propagation::Orphan => PropagationPolicy::Orphan,
            }),
            preconditions: Some(Preconditions {
                uid: Some(object.uid.clone()),
                resource_version: object.resource_version.clone(),
            }),
            ..DeleteParams::default()
        };
        tracing::debug!(kind = object.resource.kind, key = %object.key, ?propagation, "collected");
        settled(
            self.api(object)
                .delete(&object.key.name, &params)
                .await
                .map(drop),
        )
    }

    async fn disown(
        &self,
        object: &Object,
        owners: impl Iterator<Item = &String>,
    ) -> Result<(), kube::Error> {
        let gone: HashSet<&String> = owners.collect();
        let api = self.api(object);
        // The whole list is written, since custom resources know no strategic merge: from what is there now.
        let current = match api.get_metadata(&object.key.name).await {
            Err(error) if is_not_found(&error) => return Ok(()),
            current => current?,
        };
        if current.metadata.uid.as_ref() != Some(&object.uid) {
            return Ok(());
        }
        let mut references = current.metadata.owner_references.unwrap_or_default();
        references.retain(|reference| !gone.contains(&reference.uid));
        let patch = json!({"metadata": {
            "resourceVersion": current.metadata.resource_version, "ownerReferences": references,
        }});
        settled(
            api.patch(
                &object.key.name,
                &PatchParams::default(),
                &Patch::Merge(&patch),
            )
            .await
            .map(drop),
        )
    }

    async fn finish(&self, object: &Object, finalizer: &str) -> Result<(), kube::Error> {
        let api = self.api(object);
        let current = match api.get_metadata(&object.key.name).await {
            Err(error) if is_not_found(&error) => return Ok(()),
            current => current?,
        };
        if current.metadata.uid.as_ref() != Some(&object.uid) {
            return Ok(());
        }
        let mut finalizers = current.metadata.finalizers.unwrap_or_default();
        finalizers.retain(|known| known != finalizer);
        let patch = json!({"metadata": {
            "resourceVersion": current.metadata.resource_version, "finalizers": finalizers,
        }});
        settled(
            api.patch(
                &object.key.name,
                &PatchParams::default(),
                &Patch::Merge(&patch),
            )
            .await
            .map(drop),
        )
    }
}

/// An object that is gone needs nothing more, and one that has changed comes back by its watch; but a write against
/// an old version that no event follows must be tried again.
fn settled(result: Result<(), kube::Error>) -> Result<(), kube::Error> {
    match result {
        Err(error) if is_not_found(&error) => Ok(()),
        Err(error) if is_conflict(&error) => {
            tracing::trace!(%error, "judged from an old version");
            Err(error)
        }
        result => result,
    }
}
