//! Namespaces end: everything in them is deleted, and once nothing is left, they go.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use meshgate_api::client::{Key, Next, Queue, is_not_found};
use serde_json::json;

use crate::conditions::whole_seconds;
use crate::context::Context;
use crate::inventory::{Inventory, Kind, Seen};
use crate::objects::{Condition, Namespace, condition};

/// Namespaces worked on at once.
const WORKERS: usize = 2;
/// Requests under way at once for one namespace.
const REQUESTS_MAX: usize = 8;
/// The finalizer that this controller stands for.
const FINALIZER: &str = "kubernetes";
/// A namespace with something left is looked at again when something of it goes; and after this long in case that
/// nothing tells, as with kinds that cannot be watched.
const LOOK_AGAIN: Duration = Duration::from_secs(15);

/// The namespace controller.
pub(crate) struct Controller {
    context: Arc<Context>,
    inventory: Arc<Inventory>,
    queue: Queue<Key>,
}

/// Objects of one kind that are still there.
#[derive(Debug, Clone, PartialEq)]
struct Left {
    kind: String,
    objects: usize,
    /// Finalizers that hold some of them.
    finalizers: Vec<String>,
}

impl Controller {
    pub(crate) fn new(context: &Arc<Context>, inventory: &Arc<Inventory>) -> Self {
        let queue = Queue::default();
        let keys = queue.clone();
        context.namespaces.on_change(move |change| {
            if change.object().metadata.deletion_timestamp.is_some() {
                keys.add(Key::of(&**change.object()));
            }
        });
        let keys = queue.clone();
        let namespaces = context.namespaces.clone();
        inventory.on_change(move |object, seen| {
            let key = Key::cluster(object.key.namespace.clone());
            let is_ending = || {
                namespaces
                    .get(&key)
                    .is_some_and(|ns| ns.metadata.deletion_timestamp.is_some())
            };
            if seen == Seen::Gone && !key.name.is_empty() && is_ending() {
                keys.add(key);
            }
        });
        Self {
            context: Arc::clone(context),
            inventory: Arc::clone(inventory),
            queue,
        }
    }

    pub(crate) async fn run(&self) {
        tokio::join!(self.context.namespaces.synced(), self.inventory.synced());
        self.queue
            .work("namespace", WORKERS, async |key: &Key| {
                self.reconcile(key).await
            })
            .await;
    }

    async fn reconcile(&self, key: &Key) -> Result<Next, kube::Error> {
        let Some(namespace) = self.context.namespaces.get(key) else {
            return Ok(Next::Event);
        };
        let is_ending = namespace.metadata.deletion_timestamp.is_some();
        if !is_ending
            || !namespace
                .spec
                .finalizers
                .iter()
                .any(|finalizer| finalizer == FINALIZER)
        {
            return Ok(Next::Event);
        }
        let kinds: Vec<Kind> = self
            .inventory
            .kinds()
            .into_iter()
            .filter(|kind| kind.namespaced)
            .collect();
        let left: Vec<Left> = stream::iter(&kinds)
            .map(|kind| self.clear(&key.name, kind))
            .buffer_unordered(REQUESTS_MAX)
            .try_filter_map(async |left| Ok(left))
            .try_collect()
            .await?;
        if left.is_empty() {
            return self.finalize(&key.name).await.map(|()| Next::Event);
        }
        self.report(&namespace, left).await?;
        Ok(Next::After(LOOK_AGAIN))
    }

    /// Deletes what is left of a kind; what remains after that.
    async fn clear(&self, namespace: &str, kind: &Kind) -> Result<Option<Left>, kube::Error> {
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.context.client.clone(), namespace, &kind.resource);
        let list = async || match api.list_metadata(&ListParams::default()).await {
            // The kind went with its definition.
            Err(error) if is_not_found(&error) => Ok(Vec::new()),
            listed => listed.map(|listed| listed.items),
        };
        let found = list().await?;
        if found.is_empty() {
            return Ok(None);
        }
        let pending = found
            .iter()
            .filter(|object| object.metadata.deletion_timestamp.is_none());
        if pending.clone().next().is_some() {
            let params = DeleteParams::background();
            if kind.has_collection {
                api.delete_collection(&params, &ListParams::default())
                    .await?;
            } else {
                for object in pending {
                    match api
                        .delete(object.metadata.name.as_deref().unwrap_or_default(), &params)
                        .await
                    {
                        Err(error) if !is_not_found(&error) => return Err(error),
                        _ => {}
                    }
                }
            }
        }
        let remaining = list().await?;
        if remaining.is_empty() {
            return Ok(None);
        }
        let mut finalizers: Vec<String> = remaining
            .iter()
            .flat_map(|object| object.metadata.finalizers.clone().unwrap_or_default())
            .collect();
        finalizers.sort();
        finalizers.dedup();
        let resource = &kind.resource;
        let kind = if resource.group.is_empty() {
            format!("{}.", resource.plural)
        } else {
            format!("{}.{}", resource.plural, resource.group)
        };
        Ok(Some(Left {
            kind,
            objects: remaining.len(),
            finalizers,
        }))
    }

    async fn finalize(&self, name: &str) -> Result<(), kube::Error> {
        let api = Api::<DynamicObject>::all_with(
            self.context.client.clone(),
            &kube::discovery::ApiResource::erase::<Namespace>(&()),
        );
        let mut namespace = match api.get(name).await {
            Err(error) if is_not_found(&error) => return Ok(()),
            namespace => namespace?,
        };
        if let Some(finalizers) = namespace.data["spec"]["finalizers"].as_array_mut() {
            finalizers.retain(|finalizer| finalizer != FINALIZER);
        }
        match api
            .replace_subresource("finalize", name, &PostParams::default(), &namespace)
            .await
        {
            Err(error) if !is_not_found(&error) => Err(error),
            _ => Ok(()),
        }
    }

    /// Says in conditions what is left, unless they say so already.
    async fn report(&self, namespace: &Namespace, left: Vec<Left>) -> Result<(), kube::Error> {
        let known = &namespace.status.conditions;
        let mut wanted = conditions(left);
        let says = |new: &Condition, old: &Condition| {
            new.status == old.status && new.message == old.message
        };
        if wanted
            .iter()
            .all(|new| condition(known, &new.type_).is_some_and(|old| says(new, old)))
        {
            return Ok(());
        }
        for new in &mut wanted {
            let same = condition(known, &new.type_).filter(|old| old.status == new.status);
            let since = same.and_then(|old| old.last_transition_time.clone());
            new.last_transition_time = since.or_else(|| Some(whole_seconds(Timestamp::now())));
        }
        let api = Api::<Namespace>::all(self.context.client.clone());
        let patch = json!({"status": {"conditions": wanted}});
        let name = namespace.metadata.name.as_deref().unwrap_or_default();
        match api
            .patch_status(name, &PatchParams::default(), &Patch::Strategic(&patch))
            .await
        {
            Err(error) if !is_not_found(&error) => Err(error),
            _ => Ok(()),
        }
    }
}

fn conditions(mut left: Vec<Left>) -> Vec<Condition> {
    left.sort_by(|a, b| a.kind.cmp(&b.kind));
    let contents: Vec<String> = left
        .iter()
        .map(|left| format!("{} has {} resource instances", left.kind, left.objects))
        .collect();
    let finalizers: BTreeSet<&String> = left.iter().flat_map(|left| &left.finalizers).collect();
    let held: Vec<String> = finalizers
        .into_iter()
        .map(|finalizer| {
            let holding = left
                .iter()
                .filter(|left| left.finalizers.contains(finalizer));
            format!(
                "{finalizer} in {} resource instances",
                holding.map(|left| left.objects).sum::<usize>()
            )
        })
        .collect();
    let say = |type_: &str, status: &str, reason: &str, message: String| Condition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message,
        ..Condition::default()
    };
    let contents = format!("Some resources are remaining: {}", contents.join(", "));
    vec![
        say(
            "NamespaceContentRemaining",
            "True",
            "SomeResourcesRemain",
            contents,
        ),
        if held.is_empty() {
            let message = "All content-preserving finalizers finished".to_owned();
            say(
                "NamespaceFinalizersRemaining",
                "False",
                "ContentHasNoFinalizers",
                message,
            )
        } else {
            let message = format!(
                "Some content in the namespace has finalizers remaining: {}",
                held.join(", ")
            );
            say(
                "NamespaceFinalizersRemaining",
                "True",
                "SomeFinalizersRemain",
                message,
            )
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_said() {
        let left = |kind: &str, objects, finalizers: &[&str]| Left {
            kind: kind.to_owned(),
            objects,
            finalizers: finalizers.iter().map(|f| (*f).to_owned()).collect(),
        };
        let all = conditions(vec![
            left("pods.", 2, &[]),
            left("jobs.batch", 1, &["a.test/f"]),
        ]);
        assert_eq!(
            all[0].message,
            "Some resources are remaining: jobs.batch has 1 resource instances, pods. has 2 resource instances"
        );
        assert_eq!(
            all[1].message,
            "Some content in the namespace has finalizers remaining: a.test/f in 1 resource instances"
        );
        let none = conditions(vec![left("pods.", 2, &[])]);
        assert_eq!(none[1].status, "False");
    }
}
