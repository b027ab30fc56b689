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
    streams: Mutex<Streams>,
    next: AtomicU64,
    progress: Notify,
    edges: watch::Sender<u32>,
}

/// Each stream with its role, which never changes: counting needs no stream's own lock.
type Streams = BTreeMap<u64, (Role, Arc<Mutex<StreamState>>)>;

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
        let role = lock(&state).viewer.role;
        self.change(|streams| streams.insert(id, (role, state)));
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
        count_of(&lock(&self.streams), role)
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
        let streams = lock(&self.streams);
        streams.values().map(|(_, state)| state.clone()).collect()
    }

    /// How many proxies are connected.
    pub(crate) fn count(&self) -> usize {
        lock(&self.streams).len()
    }

    /// A stream comes or goes. The count is published under the same lock: a later one is never overtaken by an
    /// earlier one, and would stay wrong until the next stream.
    fn change(&self, change: impl FnOnce(&mut Streams) -> Option<(Role, Arc<Mutex<StreamState>>)>) {
        let mut streams = lock(&self.streams);
        let gone = change(&mut streams);
        let edges = u32::try_from(count_of(&streams, Role::Edge)).unwrap_or(u32::MAX);
        self.edges
            .send_if_modified(|count| std::mem::replace(count, edges) != edges);
        drop(streams);
        drop(gone);
        self.progressed();
    }
}

fn count_of(streams: &Streams, role: Role) -> usize {
    streams.values().filter(|(of, _)| *of == role).count()
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.replicas.change(|streams| streams.remove(&self.id));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use meshgate_api::push::Node;
    use meshgate_certs::identity::SpiffeId;

    use super::*;
    use crate::xds::{tests::domain, viewer::Viewer};

    fn stream(role: Role) -> Arc<Mutex<StreamState>> {
        let (namespace, account) = match role {
            Role::Edge => ("meshgate-system", "edge"),
            _ => ("shop", "web"),
        };
        let node = Node {
            role: role.into(),
            namespace: namespace.to_owned(),
            ..Node::default()
        };
        let identity = SpiffeId::new(&domain(), namespace, account).expect("an identity");
        let viewer = Viewer::new(Some(&node), &identity).expect("a viewer");
        Arc::new(Mutex::new(StreamState::new(viewer)))
    }

    #[test]
    fn replicas_are_counted_while_their_streams_are_busy() {
        let (done, counts) = std::sync::mpsc::channel();
        let busy = stream(Role::Edge);
        let replicas = Replicas::new();
        let first = replicas.register(busy.clone());
        let answer = lock(&busy);
        std::thread::spawn(move || {
            let edges = replicas.edges();
            let second = replicas.register(stream(Role::Edge));
            let _sidecar = replicas.register(stream(Role::Sidecar));
            let both = *edges.borrow();
            drop(second);
            let one = *edges.borrow();
            drop(first);
            // The other end waits for it, or the test failed already.
            let _ = done.send((both, one, *edges.borrow(), replicas.count_of(Role::Sidecar)));
        });
        let counted = counts.recv_timeout(Duration::from_secs(20));
        drop(answer);
        assert_eq!(counted, Ok((2, 1, 0, 1)));
    }
}
