//! The pods of this node: one watch, one worker for each, and nothing left of those that are gone.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::runtime::watcher;
use meshgate_api::client::{Cache, Change};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Node;
use super::record::PodRecord;
use super::worker::{PodUpdate, Worker, remove_files, remove_sandbox};
use crate::container::{Adopted, adopt};

/// Time to end of containers whose pod was deleted while no agent ran.
const ORPHAN_GRACE: Duration = Duration::from_secs(2);

/// A pod and who serves its requests.
#[derive(Debug, Clone)]
pub(crate) struct PodEntry {
    pub(crate) pod: Arc<Pod>,
}

/// Keeps the node's pods.
pub(crate) struct Keeper {
    node: Arc<Node>,
    cache: Cache<Pod>,
    /// By namespace and name, for the node's API.
    entries: Arc<Mutex<HashMap<(String, String), PodEntry>>>,
}

impl Keeper {
    pub(crate) fn new(node: Arc<Node>) -> Keeper {
        Keeper {
            node,
            cache: Cache::default(),
            entries: Arc::default(),
        }
    }

    /// The pods by namespace and name.
    pub(crate) fn entries(&self) -> Arc<Mutex<HashMap<(String, String), PodEntry>>> {
        Arc::clone(&self.entries)
    }

    /// Runs until `shutdown`, and until all workers have let go of their pods.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let (changes, changed) = mpsc::unbounded_channel();
        self.cache.on_change(move |change| {
            // The receiver lives as long as the watch.
            let _ = changes.send(change.clone());
        });
        let api = Api::<Pod>::all(self.node.client.clone());
        let config =
            watcher::Config::default().fields(&format!("spec.nodeName={}", self.node.facts.name));
        let watch = self.cache.clone();
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = watch.run(api, config) => {}
            () = self.serve(changed, &shutdown) => {}
        }
    }

    async fn serve(
        &self,
        mut changes: mpsc::UnboundedReceiver<Change<Pod>>,
        shutdown: &CancellationToken,
    ) {
        // Addresses of running pods must be taken before anybody gets a new one; that needs no API.
        let mut known = self.known_pods();
        self.node.network.adopt(&live_addresses(&self.node, &known));
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = self.cache.synced() => {}
        }
        // Workers of this node may start only now: which Services there are is part of every environment.
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = self.node.services.synced() => {}
        }
        let strays = stray_containers(&self.node, &known);
        for pod in self.cache.list() {
            known.remove(pod.metadata.uid.as_deref().unwrap_or_default());
        }
        let mut workers = JoinSet::new();
        for id in strays {
            workers.spawn(remove_stray(Arc::clone(&self.node), id));
        }
        for (_, record) in known {
            workers.spawn(remove_orphan(Arc::clone(&self.node), record));
        }
        let mut pods: HashMap<String, watch::Sender<PodUpdate>> = HashMap::new();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                Some(change) = changes.recv() => self.apply(change, &mut pods, &mut workers, shutdown),
                Some(_) = workers.join_next() => pods.retain(|_, updates| !updates.is_closed()),
            }
        }
        // They see the shutdown too, and leave their containers alone.
        while workers.join_next().await.is_some() {}
    }

    fn apply(
        &self,
        change: Change<Pod>,
        pods: &mut HashMap<String, watch::Sender<PodUpdate>>,
        workers: &mut JoinSet<()>,
        shutdown: &CancellationToken,
    ) {
        let gone = matches!(change, Change::Deleted(_));
        let pod = Arc::clone(change.object());
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        self.enter(&pod, gone);
        let update = PodUpdate { pod, gone };
        match pods.get(&uid) {
            Some(updates) if !updates.is_closed() => {
                updates.send_replace(update);
            }
            _ if gone => {
                pods.remove(&uid);
            }
            _ => {
                let (sender, receiver) = watch::channel(update);
                pods.insert(uid, sender);
                let worker = Worker::new(Arc::clone(&self.node), receiver);
                workers.spawn(worker.run(shutdown.clone()));
            }
        }
    }

    fn enter(&self, pod: &Arc<Pod>, gone: bool) {
        let name = pod.metadata.name.clone().unwrap_or_default();
        let key = (pod.metadata.namespace.clone().unwrap_or_default(), name);
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if !gone {
            let pod = Arc::clone(pod);
            entries.insert(key, PodEntry { pod });
        } else if entries
            .get(&key)
            .is_some_and(|entry| entry.pod.metadata.uid == pod.metadata.uid)
        {
            entries.remove(&key);
        }
    }

    /// Pods that this node has files of, by uid.
    fn known_pods(&self) -> HashMap<String, PodRecord> {
        let mut known = HashMap::new();
        for entry in fs::read_dir(self.node.paths.all_pod_data())
            .into_iter()
            .flatten()
            .flatten()
        {
            let uid = entry.file_name().to_string_lossy().into_owned();
            let mut record = PodRecord::read(&entry.path()).unwrap_or_default();
            record.uid.clone_from(&uid);
            known.insert(uid, record);
        }
        // A sandbox without a record: its agent died in between.
        for entry in fs::read_dir(self.node.paths.all_pod_runs())
            .into_iter()
            .flatten()
            .flatten()
        {
            let uid = entry.file_name().to_string_lossy().into_owned();
            known.entry(uid.clone()).or_insert_with(|| PodRecord {
                uid,
                ..PodRecord::default()
            });
        }
        known
    }
}

/// Addresses of pods whose sandbox is still there.
fn live_addresses(node: &Node, known: &HashMap<String, PodRecord>) -> Vec<(String, Ipv4Addr)> {
    known
        .values()
        .filter(|record| {
            crate::net::namespace::is_namespace(&node.paths.pod_run(&record.uid).join("net"))
        })
        .filter_map(|record| Some((record.uid.clone(), record.address?)))
        .collect()
}

/// Containers that no record names: their agent died between two files.
fn stray_containers(node: &Node, known: &HashMap<String, PodRecord>) -> Vec<String> {
    let named: HashSet<&str> = known
        .values()
        .flat_map(|record| record.containers.values())
        .filter_map(|container| container.id.as_deref())
        .collect();
    fs::read_dir(node.paths.all_containers())
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|id| !named.contains(id.as_str()))
        .collect()
}

async fn remove_stray(node: Arc<Node>, id: String) {
    let dir = node.paths.container(&id);
    if let Adopted::Running(running) = adopt(&dir, &id) {
        running.kill();
        running.exited().await;
    }
    let _ = fs::remove_dir_all(dir);
}

/// Ends what runs of a pod that the API does not know, and removes everything of it.
async fn remove_orphan(node: Arc<Node>, record: PodRecord) {
    tracing::info!(
        pod = record.name,
        uid = record.uid,
        "removing what is left of a pod that is gone"
    );
    for container in record.containers.values() {
        let Some(id) = &container.id else { continue };
        if let Adopted::Running(running) = adopt(&node.paths.container(id), id) {
            running.stop();
            if tokio::time::timeout(ORPHAN_GRACE, running.exited())
                .await
                .is_err()
            {
                running.kill();
                running.exited().await;
            }
        }
    }
    remove_sandbox(&node, &record.uid).await;
    remove_files(&node, &record);
}
