//! The watches of Secrets and ConfigMaps: each by name, so that no other is ever read.

use std::{collections::HashMap, fmt::Debug, time::Duration};

use futures::StreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{
    Api, Client, Resource,
    runtime::watcher::{self, watch_object},
};
use meshgate_api::client::message;
use serde::de::DeserializeOwned;
use tokio::{sync::mpsc, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{cause, pause};
use crate::{
    objects::{self, Change, Kind, Name, Object},
    retry::Retry,
};

/// At the first start, permissions appear within milliseconds.
const FORBIDDEN_MAX: Duration = Duration::from_secs(1);
/// Whatever else is out of order may pass, and proxies go on with what they have; but new ones have nothing, and wait.
const FAILING_MAX: Duration = Duration::from_secs(60);
const FORBIDDEN: &str =
    "the control plane has no right to; apply this version's ClusterRole meshgate:push";

/// Those that run.
pub(crate) struct NamedWatches {
    client: Client,
    changes: mpsc::Sender<Change>,
    tasks: TaskTracker,
    shutdown: CancellationToken,
    running: HashMap<(Kind, Name), CancellationToken>,
}

impl NamedWatches {
    pub(crate) fn new(
        client: Client,
        changes: mpsc::Sender<Change>,
        tasks: TaskTracker,
        shutdown: CancellationToken,
    ) -> Self {
        Self {
            client,
            changes,
            tasks,
            shutdown,
            running: HashMap::new(),
        }
    }

    pub(crate) fn want_secret(&mut self, name: &Name, wanted: bool) {
        let api = Api::<Secret>::namespaced(self.client.clone(), &name.namespace);
        self.want(api, (Kind::Secret, name), wanted, |secret| {
            Object::Secret(objects::Secret::trim(secret))
        });
    }

    pub(crate) fn want_config_map(&mut self, name: &Name, wanted: bool) {
        let api = Api::<ConfigMap>::namespaced(self.client.clone(), &name.namespace);
        self.want(api, (Kind::ConfigMap, name), wanted, |map| {
            Object::ConfigMap(objects::ConfigMap::trim(map))
        });
    }

    fn want<K>(
        &mut self,
        api: Api<K>,
        (kind, name): (Kind, &Name),
        wanted: bool,
        trim: fn(K) -> Object,
    ) where
        K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    {
        let key = (kind, name.clone());
        if !wanted {
            if let Some(end) = self.running.remove(&key) {
                end.cancel();
            }
            return;
        }
        if self.running.contains_key(&key) {
            return;
        }
        let end = self.shutdown.child_token();
        let watch = watch_named(api, key.clone(), self.changes.clone(), trim);
        self.running.insert(key, end.clone());
        self.tasks.spawn(async move {
            let _ = end.run_until_cancelled(watch).await;
        });
    }
}

async fn watch_named<K>(
    api: Api<K>,
    (kind, name): (Kind, Name),
    changes: mpsc::Sender<Change>,
    trim: fn(K) -> Object,
) where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    if !name.is_subdomain() {
        // Nobody who is gone minds.
        let _ = changes.send(Change::Delete(kind, name)).await;
        return;
    }
    let mut states = std::pin::pin!(watch_object(api, &name.name));
    let mut retry = Retry::default();
    let begun = Instant::now();
    let mut known = false;
    while let Some(state) = states.next().await {
        let change = match state {
            Ok(state) => {
                retry = Retry::default();
                match state {
                    Some(object) => Change::Apply(name.clone(), Box::new(trim(object))),
                    None => Change::Delete(kind, name.clone()),
                }
            }
            Err(error) => {
                pause(&error, &format!("{kind:?} {name}"), &mut retry).await;
                // What was read once stays in force.
                match given_up(&error, begun.elapsed()).filter(|_| !known) {
                    Some(why) => Change::Unreadable(kind, name.clone(), why.into()),
                    None => continue,
                }
            }
        };
        known = true;
        if changes.send(change).await.is_err() {
            return;
        }
    }
}

/// Why an object cannot be read, once everything else must not wait for it any longer.
fn given_up(error: &watcher::Error, failing: Duration) -> Option<String> {
    let (patience, why) = match cause(error) {
        // Nobody answered: that says nothing of the object.
        Some(kube::Error::Service(_) | kube::Error::HyperError(_)) => return None,
        Some(kube::Error::Api(status)) if status.code == 403 => (FORBIDDEN_MAX, FORBIDDEN.into()),
        Some(cause) => (FAILING_MAX, message(cause)),
        None => (FAILING_MAX, error.to_string()),
    };
    (failing >= patience).then_some(why)
}

#[cfg(test)]
mod tests;
