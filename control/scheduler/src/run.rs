//! The loop around [`place`]: watches in, bindings, conditions and Events out.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams, PostParams};
use kube::core::PartialObjectMeta;
use kube::runtime::watcher;
use kube::{Api, Client};
use meshgate_api::client::{Cache, Change, EventKind, Key, Next, Queue, Recorder, Reference};
use meshgate_api::client::{is_conflict, is_not_found};
use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::cluster::{Cluster, NodeFacts};
use crate::place::{Placement, Strategy, may_help, place};
use crate::pod::Pod;
use crate::wire;

/// The scheduler that this one is, in `spec.schedulerName`.
const NAME: &str = "default-scheduler";
/// Bindings under way at once: each waits for a write to reach the disk.
const BINDINGS_MAX: usize = 32;
/// Wait before a pod that could not be placed is looked at again; doubles with each attempt. The first is short: at
/// start-up, pods are often there a moment before the nodes.
const RETRY_MIN: Duration = Duration::from_millis(10);
/// Longest such wait, as in kube-scheduler.
const RETRY_MAX: Duration = Duration::from_secs(10);

/// Runs the scheduler until `shutdown`; failures of the API server are waited out.
pub async fn run(client: Client, shutdown: CancellationToken) -> Result<(), Infallible> {
    run_with(client, Strategy::default(), shutdown).await
}

/// As [`run`], with a choice of strategy.
pub async fn run_with(
    client: Client,
    strategy: Strategy,
    shutdown: CancellationToken,
) -> Result<(), Infallible> {
    let (recorder, events) = Recorder::new(client.clone(), NAME, "");
    let pods = Cache::<wire::Pod>::default();
    let nodes = Cache::<wire::Node>::default();
    let namespaces = Cache::<PartialObjectMeta<Namespace>>::default();
    let state = Arc::new(State::default());
    listen(&state, &pods, &nodes, &namespaces);
    let config = watcher::Config::default;
    let watches = async {
        tokio::join!(
            pods.run(Api::all(client.clone()), config()),
            nodes.run(Api::all(client.clone()), config()),
            namespaces.run(Api::all(client.clone()), config()),
            events.run(),
        )
    };
    let scheduler = Scheduler {
        client: client.clone(),
        pods: pods.clone(),
        state,
        recorder,
        strategy,
    };
    let schedule = async {
        tokio::join!(pods.synced(), nodes.synced(), namespaces.synced());
        tracing::info!(pods = pods.len(), nodes = nodes.len(), "scheduler is ready");
        scheduler
            .state
            .queue
            .work("scheduler", BINDINGS_MAX, async |key: &Key| {
                scheduler.schedule(key).await
            })
            .await;
    };
    tokio::select! {
        () = shutdown.cancelled() => {}
        _ = watches => {}
        () = schedule => {}
    }
    Ok(())
}

/// What the watches and the workers share.
#[derive(Default)]
struct State {
    world: Mutex<World>,
    queue: Queue<Key>,
}

/// The cluster, and the pods that found no place in it: under one lock, so that no change slips between a decision
/// and the wait for the next change.
#[derive(Default)]
struct World {
    cluster: Cluster,
    unplaced: HashMap<Key, Waiting>,
}

struct Waiting {
    pod: Arc<Pod>,
    attempts: u32,
    last: Instant,
    /// What the pod's condition says.
    message: String,
}

impl State {
    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks again at the unplaced pods that `concerned` picks, each after its own wait.
    fn wake(&self, world: &World, concerned: impl Fn(&Pod) -> bool) {
        for (key, waiting) in world
            .unplaced
            .iter()
            .filter(|(_, waiting)| concerned(&waiting.pod))
        {
            let due = waiting.last + backoff(waiting.attempts);
            self.queue
                .add_after(key.clone(), due.saturating_duration_since(Instant::now()));
        }
    }

    fn wake_for_node(&self, world: &World, node: &str) {
        if let Some(node) = world.cluster.node(node) {
            self.wake(world, |pod| may_help(pod, node));
        }
    }

    fn pod_changed(&self, change: &Change<wire::Pod>) {
        let wire = &**change.object();
        let mut world = self.world();
        if matches!(change, Change::Deleted(_)) || is_finished(wire) {
            world.unplaced.remove(&Key::of(wire));
            if let Some(node) = world
                .cluster
                .remove_pod(wire.metadata.uid.as_deref().unwrap_or_default())
            {
                self.wake_for_node(&world, &node);
            }
        } else if let Some(node) = &wire.spec.node_name {
            world.unplaced.remove(&Key::of(wire));
            match Pod::try_from(wire) {
                Ok(pod) => world.cluster.set_pod(node, Arc::new(pod)),
                Err(error) => {
                    tracing::warn!(pod = %Key::of(wire), %error, "a placed pod cannot be counted")
                }
            }
            // A neighbour may be what someone waits for.
            self.wake(&world, |pod| {
                !pod.neighbours.is_empty() || !pod.spread.is_empty()
            });
        } else if is_ours(wire) && wishes_changed(change) {
            self.queue.add(Key::of(wire));
        }
    }

    fn node_changed(&self, change: &Change<wire::Node>) {
        let wire = &**change.object();
        let name = wire.metadata.name.as_deref().unwrap_or_default();
        let mut world = self.world();
        if matches!(change, Change::Deleted(_)) {
            world.cluster.remove_node(name);
            return;
        }
        match NodeFacts::try_from(wire) {
            Ok(facts) => {
                if world.cluster.set_node(facts) {
                    self.wake_for_node(&world, name);
                }
            }
            Err(error) => {
                tracing::warn!(node = name, %error, "the node's allocatable amounts cannot be read")
            }
        }
    }
}

fn listen(
    state: &Arc<State>,
    pods: &Cache<wire::Pod>,
    nodes: &Cache<wire::Node>,
    namespaces: &Cache<PartialObjectMeta<Namespace>>,
) {
    let shared = Arc::clone(state);
    pods.on_change(move |change| shared.pod_changed(change));
    let shared = Arc::clone(state);
    nodes.on_change(move |change| shared.node_changed(change));
    let shared = Arc::clone(state);
    namespaces.on_change(move |change| {
        let meta = &change.object().metadata;
        let labels = (!matches!(change, Change::Deleted(_)))
            .then(|| meta.labels.clone().unwrap_or_default());
        let mut world = shared.world();
        world
            .cluster
            .set_namespace(meta.name.as_deref().unwrap_or_default(), labels);
        shared.wake(&world, |pod| !pod.neighbours.is_empty());
    });
}

struct Scheduler {
    client: Client,
    pods: Cache<wire::Pod>,
    state: Arc<State>,
    recorder: Recorder,
    strategy: Strategy,
}

impl Scheduler {
    async fn schedule(&self, key: &Key) -> Result<Next, kube::Error> {
        let Some(wire) = self.pods.get(key) else {
            return Ok(Next::Event);
        };
        if !is_ours(&wire) || wire.spec.node_name.is_some() || is_finished(&wire) {
            return Ok(Next::Event);
        }
        let pod = match Pod::try_from(&*wire) {
            Ok(pod) => Arc::new(pod),
            Err(error) => {
                self.explain(&wire, &chain(&error)).await?;
                return Ok(Next::Event);
            }
        };
        match self.decide(key, &pod) {
            Decision::Underway => {}
            Decision::Bind(placement) => self.bind(&wire, &pod, &placement).await?,
            Decision::Explain(message) => self.explain(&wire, &message).await?,
            Decision::Unchanged(message) => self.tell(&wire, &message),
        }
        Ok(Next::Event)
    }

    /// Places the pod and books its resources at once, so that the next decision counts with them.
    fn decide(&self, key: &Key, pod: &Arc<Pod>) -> Decision {
        let mut world = self.state.world();
        if world.cluster.is_placed(&pod.uid) {
            return Decision::Underway;
        }
        match place(pod, &world.cluster, self.strategy) {
            Ok(placement) => {
                world.cluster.set_pod(&placement.node, Arc::clone(pod));
                world.unplaced.remove(key);
                Decision::Bind(placement)
            }
            Err(unplaced) => {
                let message = unplaced.to_string();
                let known = world
                    .unplaced
                    .remove(key)
                    .filter(|known| known.pod.uid == pod.uid);
                let attempts = known.as_ref().map_or(0, |known| known.attempts) + 1;
                let unchanged = known.is_some_and(|known| known.message == message);
                let pod = Arc::clone(pod);
                let waiting = Waiting {
                    pod,
                    attempts,
                    last: Instant::now(),
                    message: message.clone(),
                };
                world.unplaced.insert(key.clone(), waiting);
                if unchanged {
                    Decision::Unchanged(message)
                } else {
                    Decision::Explain(message)
                }
            }
        }
    }

    async fn bind(
        &self,
        wire: &wire::Pod,
        pod: &Pod,
        placement: &Placement,
    ) -> Result<(), kube::Error> {
        let Key { namespace, name } = &pod.key;
        let binding = json!({
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": name, "namespace": namespace, "uid": pod.uid},
            "target": {"apiVersion": "v1", "kind": "Node", "name": placement.node},
        });
        let api = Api::<wire::Pod>::namespaced(self.client.clone(), namespace);
        let bound: Result<serde_json::Value, _> = api
            .create_subresource("binding", name, &PostParams::default(), &binding)
            .await;
        match bound {
            Ok(_) => {
                let message = format!("Successfully assigned {} to {}", pod.key, placement.node);
                self.recorder
                    .record(Reference::of(wire), EventKind::Normal, "Scheduled", message);
                Ok(())
            }
            Err(error) => {
                self.unbook(pod);
                // Deleted, or bound by someone else: the watch says which.
                if is_not_found(&error) || is_conflict(&error) {
                    Ok(())
                } else {
                    Err(error)
                }
            }
        }
    }

    /// Takes a booking back, unless the pod runs there after all.
    fn unbook(&self, pod: &Pod) {
        let mut world = self.state.world();
        let is_bound = self
            .pods
            .get(&pod.key)
            .is_some_and(|wire| wire.spec.node_name.is_some());
        if !is_bound && let Some(node) = world.cluster.remove_pod(&pod.uid) {
            self.state.wake_for_node(&world, &node);
        }
    }

    /// Says why the pod has no node: an Event and its condition.
    async fn explain(&self, wire: &wire::Pod, message: &str) -> Result<(), kube::Error> {
        self.tell(wire, message);
        let known = wire
            .status
            .conditions
            .iter()
            .find(|condition| condition.type_ == "PodScheduled");
        if known.is_some_and(|known| {
            known.status == "False" && known.message.as_deref() == Some(message)
        }) {
            return Ok(());
        }
        let since = known
            .filter(|known| known.status == "False")
            .and_then(|known| known.last_transition_time.as_ref())
            .map_or_else(
                || Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
                |time| time.0.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            );
        let patch = json!({"status": {"conditions": [{
            "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message,
            "lastTransitionTime": since,
        }]}});
        let Key { namespace, name } = Key::of(wire);
        let api = Api::<wire::Pod>::namespaced(self.client.clone(), &namespace);
        match api
            .patch_status(&name, &PatchParams::default(), &Patch::Strategic(&patch))
            .await
        {
            Ok(_) => Ok(()),
            Err(error) if is_not_found(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn tell(&self, wire: &wire::Pod, message: &str) {
        self.recorder.record(
            Reference::of(wire),
            EventKind::Warning,
            "FailedScheduling",
            message,
        );
    }
}

enum Decision {
    /// A binding of this pod is on its way.
    Underway,
    Bind(Placement),
    /// No place, and the pod does not know why yet.
    Explain(String),
    /// No place for the same reasons as before.
    Unchanged(String),
}

fn is_ours(pod: &wire::Pod) -> bool {
    pod.metadata.deletion_timestamp.is_none()
        && pod.spec.scheduling_gates.is_empty()
        && pod
            .spec
            .scheduler_name
            .as_deref()
            .is_none_or(|name| name == NAME)
}

fn is_finished(pod: &wire::Pod) -> bool {
    matches!(pod.status.phase.as_str(), "Succeeded" | "Failed")
}

/// Whether the change can alter a decision; our own condition on the pod cannot.
fn wishes_changed(change: &Change<wire::Pod>) -> bool {
    let Change::Updated { before, after } = change else {
        return true;
    };
    if !is_ours(before) {
        return true;
    }
    match (Pod::try_from(&**before), Pod::try_from(&**after)) {
        (Ok(before), Ok(after)) => before != after,
        (Err(_), Err(_)) => false,
        _ => true,
    }
}

fn backoff(attempts: u32) -> Duration {
    RETRY_MIN
        .saturating_mul(1 << attempts.saturating_sub(1).min(16))
        .min(RETRY_MAX)
}

fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}
