//! The watches of Secrets and ConfigMaps: each by name, so that no other is ever read.

use std::{collections::HashMap, fmt::Debug};

use futures::StreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{Api, Client, Resource, runtime::watcher::watch_object};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{is_refused, pause};
use crate::{
    objects::{self, Change, Kind, Name, Object},
    retry::Retry,
};

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
    let mut states = std::pin::pin!(watch_object(api, &name.name));
    let mut retry = Retry::default();
    let mut known = false;
    while let Some(state) = states.next().await {
        let change = match state {
            Ok(Some(object)) => Change::Apply(name.clone(), Box::new(trim(object))),
            Ok(None) => Change::Delete(kind, name.clone()),
            Err(error) => {
                pause(&error, &format!("{kind:?} {name}"), &mut retry).await;
                // What may not be read does not exist for us; everything else must not wait for it.
                if known || !(is_refused(&error) && retry.has_lasted()) {
                    continue;
                }
                Change::Delete(kind, name.clone())
            }
        };
        known = true;
        if changes.send(change).await.is_err() {
            return;
        }
    }
}
