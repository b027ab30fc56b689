//! The worker of one pod: one task that decides, others that wait for it. Nothing else touches the pod's processes and
//! files.
//!
//! Each turn looks at everything again (`step`): what should be, what is, what to do next; then it sleeps until
//! something happens. Turns are idempotent, so whatever wakes the worker needs to carry no meaning.

mod end;
mod restore;
mod start;

pub(crate) use end::{remove_files, remove_sandbox};

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodSpec};
use kube::Api;
use meshgate_api::client::{EventKind, Reference};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Node;
use super::phase::{Phase, phase};
use super::plan::{Now, Plan, Restart, Role, plan};
use super::record::PodRecord;
use super::sandbox::Sandbox;
use super::slot::{Slot, SlotState};
use super::status::{PodState, Times, status};
use super::writer::StatusWriter;
use crate::probe::ProbeNews;
use crate::shim::files::Exit;
use crate::sources::{Known, Source, SourceKey};
use crate::volume::Volumes;

/// The pod as the API has it.
#[derive(Debug, Clone)]
pub(crate) struct PodUpdate {
    pub(crate) pod: Arc<Pod>,
    /// It is not in the API any more.
    pub(crate) gone: bool,
}

/// What happened to a container, from the tasks around the worker.
#[derive(Debug)]
enum News {
    Exited(Exit),
    Probe(ProbeNews),
    /// A hook failed: which, and why.
    Hook(&'static str, String),
}

/// News of one run of one container.
struct Told {
    slot: usize,
    id: String,
    news: News,
}

/// What a turn ends with.
enum Step {
    /// Wait for news, at most until then.
    Wait(Option<Instant>),
    /// Nothing is left of the pod.
    Gone,
}

/// A pod's worker.
pub(crate) struct Worker {
    node: Arc<Node>,
    pod: Arc<Pod>,
    gone: bool,
    updates: watch::Receiver<PodUpdate>,
    record: PodRecord,
    slots: Vec<Slot>,
    restart: Restart,
    sandbox: Sandbox,
    sandbox_ready: bool,
    volumes: Volumes,
    held: HashMap<SourceKey, Arc<Source>>,
    wake: Arc<Notify>,
    tell: mpsc::UnboundedSender<Told>,
    told: mpsc::UnboundedReceiver<Told>,
    writer: StatusWriter,
    writing: JoinHandle<()>,
    times: Times,
    start_time: Timestamp,
    /// Everything must have ended by then.
    ending: Option<Instant>,
    /// Nothing will run again.
    over: bool,
    /// Why the node ended the pod: reason and message.
    verdict: Option<(String, String)>,
    /// The API already shows the end of it; nothing to add.
    settled: bool,
    /// What people were told last, by topic, so that they are told once.
    complaints: HashMap<String, String>,
    next: Option<Instant>,
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.writing.abort();
    }
}

impl Worker {
    pub(crate) fn new(node: Arc<Node>, updates: watch::Receiver<PodUpdate>) -> Worker {
        let pod = Arc::clone(&updates.borrow().pod);
        let meta = &pod.metadata;
        let (namespace, name, uid) = (
            meta.namespace.clone().unwrap_or_default(),
            meta.name.clone().unwrap_or_default(),
            meta.uid.clone().unwrap_or_default(),
        );
        let spec = pod.spec.as_ref();
        let sandbox = Sandbox::new(
            node.paths.pod_run(&uid),
            spec.is_some_and(|spec| spec.host_network.unwrap_or(false)),
            spec.is_some_and(|spec| spec.host_ipc.unwrap_or(false)),
        );
        let restart = Restart::of_pod(spec.and_then(|spec| spec.restart_policy.as_deref()));
        let api = Api::<Pod>::namespaced(node.client.clone(), &namespace);
        let (writer, work) = StatusWriter::new(api, name.clone(), uid.clone());
        // Unbounded, because an exit must never be dropped; what is told is bounded by the containers and their periods.
        let (tell, told) = mpsc::unbounded_channel();
        let start_time = pod
            .status
            .as_ref()
            .and_then(|status| status.start_time.as_ref())
            .map_or_else(Timestamp::now, |time| time.0);
        Worker {
            record: PodRecord {
                namespace,
                name,
                uid,
                ..PodRecord::default()
            },
            slots: Slot::of_pod(&pod),
            times: Times::of_pod(&pod),
            node,
            pod,
            gone: false,
            updates,
            restart,
            sandbox,
            sandbox_ready: false,
            volumes: Volumes::default(),
            held: HashMap::new(),
            wake: Arc::default(),
            tell,
            told,
            writer,
            writing: tokio::spawn(work),
            start_time,
            ending: None,
            over: false,
            verdict: None,
            settled: false,
            complaints: HashMap::new(),
            next: None,
        }
    }

    /// Lives as long as anything of the pod is on this node. Containers live on when `shutdown` ends the worker.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        self.restore();
        if self
            .pod
            .status
            .as_ref()
            .is_some_and(|status| status.container_statuses.is_some())
        {
            // What the API shows may be long past: a restarted machine must not look ready until it is.
            self.publish();
        }
        let mut images = self.node.images_loaded.clone();
        loop {
            self.next = None;
            let until = match self.step().await {
                Step::Wait(until) => until,
                Step::Gone => return,
            };
            let alarm = async {
                match until {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => return,
                changed = self.updates.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let update = self.updates.borrow_and_update().clone();
                    self.pod = update.pod;
                    self.gone = update.gone;
                    self.take_images();
                }
                Some(told) = self.told.recv() => {
                    self.take(told);
                    while let Ok(told) = self.told.try_recv() {
                        self.take(told);
                    }
                }
                () = self.wake.notified() => {}
                Ok(()) = images.changed() => {}
                () = alarm => {}
            }
        }
    }

    async fn step(&mut self) -> Step {
        self.look_for_an_end();
        if self.ending.is_some() {
            return self.end().await;
        }
        if self.over {
            self.publish();
            return Step::Wait(None);
        }
        if self.prepare().await {
            let now: Vec<(Role, Now)> = self
                .slots
                .iter()
                .map(|slot| (slot.role, slot.now()))
                .collect();
            let (plan, initialized) = plan(&now, self.restart, self.record.initialized);
            if initialized != self.record.initialized {
                self.record.initialized = initialized;
                self.save();
            }
            match plan {
                Plan::Start(slots) => {
                    for slot in slots {
                        self.start(slot).await;
                    }
                }
                Plan::Finish => {
                    self.end_within(self.grace());
                    return self.end().await;
                }
            }
        }
        self.publish();
        Step::Wait(self.next)
    }

    /// The image is the one thing of a container that may change while the pod lives: it runs again with the new one.
    fn take_images(&mut self) {
        for slot in 0..self.slots.len() {
            let name = self.slots[slot].name();
            let wanted = super::downward::containers(&self.pod).find(|wanted| wanted.name == name);
            let Some(image) = wanted.map(|wanted| wanted.image.clone()) else {
                continue;
            };
            if image != self.slots[slot].spec.image {
                let message = format!("Container {name} definition changed, will be restarted");
                self.slots[slot].spec.image = image;
                self.stop(slot, Instant::now() + self.grace(), &message);
            }
        }
    }

    /// Takes news, unless it is of a run that is over.
    fn take(&mut self, told: Told) {
        let current = match &self.slots[told.slot].state {
            SlotState::Running(running) => running.id == told.id,
            _ => false,
        };
        if !current {
            return;
        }
        match told.news {
            News::Exited(exit) => self.exited(told.slot, &told.id, &exit),
            News::Probe(news) => self.probed(told.slot, news),
            News::Hook(hook, why) => self.hook_failed(told.slot, hook, &why),
        }
    }

    fn probed(&mut self, slot: usize, news: ProbeNews) {
        match news {
            ProbeNews::Started => {
                self.slots[slot].started = true;
                self.save();
            }
            ProbeNews::Ready(ready) => self.slots[slot].ready = ready,
            ProbeNews::Unhealthy(kind, why) => {
                let message = format!("{} probe failed: {why}", kind.word());
                self.event(Some(slot), EventKind::Warning, "Unhealthy", &message);
            }
            ProbeNews::Dead(kind) => {
                let name = self.slots[slot].name();
                let message = format!(
                    "Container {name} failed {} probe, will be restarted",
                    kind.word().to_lowercase()
                );
                let probe = match kind {
                    crate::probe::ProbeKind::Startup => {
                        self.slots[slot].spec.startup_probe.as_ref()
                    }
                    _ => self.slots[slot].spec.liveness_probe.as_ref(),
                };
                let own = probe.and_then(|probe| probe.termination_grace_period_seconds);
                let grace = own
                    .and_then(|s| u64::try_from(s).ok())
                    .map(std::time::Duration::from_secs);
                self.stop(
                    slot,
                    Instant::now() + grace.unwrap_or_else(|| self.grace()),
                    &message,
                );
            }
        }
    }

    fn hook_failed(&mut self, slot: usize, hook: &'static str, why: &str) {
        if hook == "preStop" {
            self.event(
                Some(slot),
                EventKind::Warning,
                "FailedPreStopHook",
                &format!("PreStopHook failed: {why}"),
            );
        } else {
            self.event(
                Some(slot),
                EventKind::Warning,
                "FailedPostStartHook",
                &format!("PostStartHook failed: {why}"),
            );
            let message = "FailedPostStartHook";
            self.stop(slot, Instant::now() + self.grace(), message);
        }
    }

    /// Tells the API.
    fn publish(&mut self) {
        if self.settled {
            return;
        }
        let seen: Vec<_> = self.slots.iter().map(Slot::seen).collect();
        let mut phase = phase(&seen, self.restart, self.record.initialized, self.over);
        if self.verdict.is_some() && self.over {
            phase = Phase::Failed;
        }
        let pod_ip = self.pod_ip();
        let mut status = status(&PodState {
            pod: &self.pod,
            slots: &self.slots,
            phase,
            initialized: self.record.initialized,
            sandbox_ready: self.sandbox_ready,
            pod_ip,
            host_ip: &self.node.facts.address,
            start_time: self.start_time,
            verdict: self
                .verdict
                .as_ref()
                .map(|(reason, message)| (reason.as_str(), message.as_str())),
            deleting: self.pod.metadata.deletion_timestamp.is_some(),
        });
        self.times.apply(&mut status, Timestamp::now());
        self.writer.set(status);
    }

    fn pod_ip(&self) -> Option<String> {
        match self.sandbox.network() {
            None => Some(self.node.facts.address.clone()),
            Some(_) => self.record.address.map(|address| address.to_string()),
        }
    }

    /// What an event is about: a container, or the pod.
    fn event(&self, slot: Option<usize>, kind: EventKind, reason: &str, message: &str) {
        let mut about = Reference::of(&*self.pod);
        if let Some(slot) = slot.map(|slot| &self.slots[slot]) {
            about = about.container(slot.name());
            if slot.role != Role::Main {
                about.field_path = format!("spec.initContainers{{{}}}", slot.name());
            }
        }
        self.node.recorder.record(about, kind, reason, message);
    }

    /// Warns once for each new wording of a topic.
    fn complain(&mut self, topic: &str, slot: Option<usize>, reason: &str, message: &str) {
        if self
            .complaints
            .get(topic)
            .is_some_and(|known| known == message)
        {
            return;
        }
        self.complaints.insert(topic.to_owned(), message.to_owned());
        self.event(slot, EventKind::Warning, reason, message);
    }

    /// Wakes the worker at that time, if nothing does before.
    fn wake_at(&mut self, at: Instant) {
        self.next = Some(self.next.map_or(at, |next| next.min(at)));
    }

    fn spec(&self) -> Option<&PodSpec> {
        self.pod.spec.as_ref()
    }

    /// Writes down what a later agent must know.
    fn save(&mut self) {
        for slot in &self.slots {
            let container = self
                .record
                .containers
                .entry(slot.name().to_owned())
                .or_default();
            container.run = slot.run;
            container.image_id.clone_from(&slot.image_id);
            container.started = slot.started;
            container.last.clone_from(&slot.last);
            match &slot.state {
                SlotState::Waiting { .. } => {}
                SlotState::Running(running) => {
                    container.id = Some(running.id.clone());
                    container.ended = None;
                }
                SlotState::Ended(ended) => container.ended = Some(ended.clone()),
            }
        }
        if let Err(error) = self
            .record
            .write(&self.node.paths.pod_data(&self.record.uid))
        {
            tracing::warn!(pod = self.record.name, %error, "cannot write the pod's record");
        }
    }

    /// What is known of the objects that the pod uses.
    fn lookup(&self) -> impl Fn(&SourceKey) -> Known + Sync + '_ {
        |key| {
            self.held
                .get(key)
                .map_or(Known::Loading, |source| source.known(key))
        }
    }
}
