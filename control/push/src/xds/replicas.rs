//! Who is connected, and how far each is.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use meshgate_api::push::node::Role;
use tokio::sync::{Notify, watch};

use super::{
    lock,
    stream::{Standing, StreamState},
};
use crate::{compile::Key, table::Table};

/// All streams.
#[derive(Debug)]
pub(crate) struct Replicas {
    streams: Mutex<BTreeMap<u64, Arc<Mutex<StreamState>>>>,
    next: AtomicU64,
    progress: Notify,
    edges: watch::Sender<u32>,
}

/// How far all replicas that are concerned are with something.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) enforced: usize,
    pub(crate) total: usize,
    /// Replica (pod) and its reason.
    pub(crate) refused: Vec<(String, String)>,
}

/// Takes the stream out when dropped.
#[derive(Debug)]
pub(crate) struct Registered {
    replicas: Arc<Replicas>,
    id: u64,
}

impl Replicas {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            streams: Mutex::default(),
            next: AtomicU64::new(0),
            progress: Notify::new(),
            edges: watch::Sender::new(0),
        })
    }

    pub(crate) fn register(self: &Arc<Self>, state: Arc<Mutex<StreamState>>) -> Registered {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        lock(&self.streams).insert(id, state);
        self.recount();
        Registered {
            replicas: self.clone(),
            id,
        }
    }

    /// Some replica acknowledged, refused, came or went.
    pub(crate) fn progressed(&self) {
        self.progress.notify_one();
    }

    /// Waits for progress since the last wait.
    pub(crate) async fn progress(&self) {
        self.progress.notified().await;
    }

    /// How many edge replicas are connected.
    pub(crate) fn edges(&self) -> watch::Receiver<u32> {
        self.edges.subscribe()
    }

    pub(crate) fn count_of(&self, role: Role) -> usize {
        let streams = self.streams();
        streams
            .iter()
            .filter(|state| lock(state).viewer.role == role)
            .count()
    }

    /// How far the replicas that need any of `keys` are, as of `generation`.
    pub(crate) fn progress_of(
        &self,
        keys: &BTreeSet<Key>,
        generation: u64,
        table: &Table,
    ) -> Progress {
        let mut progress = Progress::default();
        for state in self.streams() {
            // The stream before the table: the order in which streams take them too.
            let state = lock(&state);
            let content = table.read();
            let standings = keys
                .iter()
                .map(|key| state.standing(key, generation, &content));
            let standings: Vec<_> = standings
                .filter(|standing| *standing != Standing::NotConcerned)
                .collect();
            if standings.is_empty() {
                continue;
            }
            progress.total += 1;
            let reason = standings.iter().find_map(|standing| match standing {
                Standing::Refused(reason) => Some(reason.clone()),
                _ => None,
            });
            match reason {
                Some(reason) => progress.refused.push((state.viewer.pod.clone(), reason)),
                None => progress.enforced += usize::from(!standings.contains(&Standing::Waiting)),
            }
        }
        progress
    }

    fn streams(&self) -> Vec<Arc<Mutex<StreamState>>> {
        lock(&self.streams).values().cloned().collect()
    }

    /// How many proxies are connected.
    pub(crate) fn count(&self) -> usize {
        lock(&self.streams).len()
    }

    fn recount(&self) {
        let edges = u32::try_from(self.count_of(Role::Edge)).unwrap_or(u32::MAX);
        self.edges
            .send_if_modified(|count| std::mem::replace(count, edges) != edges);
        self.progressed();
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        lock(&self.replicas.streams).remove(&self.id);
        self.replicas.recount();
    }
}
