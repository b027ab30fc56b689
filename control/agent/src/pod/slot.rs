//! One container of a pod: what it is, what it is doing, what it did.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, Pod, Probe};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::backoff::Backoff;
use super::phase::Seen;
use super::plan::{Now, Role};
use super::record::Ended;
use crate::container::Running;

/// A container and its state.
pub(crate) struct Slot {
    pub(crate) spec: Container,
    pub(crate) role: Role,
    pub(crate) state: SlotState,
    /// Runs before the current one.
    pub(crate) run: u32,
    /// How the run before the current one ended.
    pub(crate) last: Option<Ended>,
    pub(crate) image_id: String,
    /// Its startup probe has passed, or it has none.
    pub(crate) started: bool,
    /// Its readiness probe passes, or it has none.
    pub(crate) ready: bool,
    pub(crate) backoff: Backoff,
    /// Set while it is being stopped; carries the latest deadline.
    pub(crate) stopping: Option<watch::Sender<tokio::time::Instant>>,
    pub(crate) tasks: Vec<AbortHandle>,
}

/// What a container is doing.
pub(crate) enum SlotState {
    /// Why it does not run, in the words of `state.waiting`.
    Waiting {
        reason: String,
        message: String,
    },
    Running(Arc<Running>),
    Ended(Ended),
}

impl SlotState {
    pub(crate) fn waiting(reason: &str, message: impl Into<String>) -> SlotState {
        SlotState::Waiting {
            reason: reason.to_owned(),
            message: message.into(),
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.end_tasks();
    }
}

impl Slot {
    /// All of a pod's, init containers first, none running.
    pub(crate) fn of_pod(pod: &Pod) -> Vec<Slot> {
        let spec = pod.spec.as_ref();
        let inits = spec
            .into_iter()
            .flat_map(|spec| spec.init_containers.iter().flatten());
        let mains = spec.into_iter().flat_map(|spec| &spec.containers);
        let has_inits =
            spec.is_some_and(|spec| spec.init_containers.iter().flatten().next().is_some());
        let first = if has_inits {
            "PodInitializing"
        } else {
            "ContainerCreating"
        };
        let inits = inits.map(|container| {
            let role = match container.restart_policy.as_deref() {
                Some("Always") => Role::Sidecar,
                _ => Role::Init,
            };
            Slot::new(container, role, "PodInitializing")
        });
        inits
            .chain(mains.map(|container| Slot::new(container, Role::Main, first)))
            .collect()
    }

    fn new(spec: &Container, role: Role, reason: &str) -> Slot {
        Slot {
            spec: spec.clone(),
            role,
            state: SlotState::waiting(reason, ""),
            run: 0,
            last: None,
            image_id: String::new(),
            started: false,
            ready: false,
            backoff: Backoff::default(),
            stopping: None,
            tasks: Vec::new(),
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.spec.name
    }

    /// The probe, where one counts: init containers that end have none.
    pub(crate) fn probe<'a>(&'a self, probe: &'a Option<Probe>) -> Option<&'a Probe> {
        probe.as_ref().filter(|_| self.role != Role::Init)
    }

    pub(crate) fn running(&self) -> Option<&Arc<Running>> {
        match &self.state {
            SlotState::Running(running) => Some(running),
            _ => None,
        }
    }

    /// For the rules of what to do next: a container that waits to run again counts as ended.
    pub(crate) fn now(&self) -> Now {
        match (&self.state, &self.last) {
            (SlotState::Running(_), _) => Now::Running {
                started: self.started,
            },
            (SlotState::Ended(ended), _) => Now::Ended {
                succeeded: ended.succeeded(),
            },
            (SlotState::Waiting { .. }, Some(last)) if self.ran_in_this_sandbox() => Now::Ended {
                succeeded: last.succeeded(),
            },
            (SlotState::Waiting { .. }, _) => Now::Waiting,
        }
    }

    /// A wait that began with an end, not with a new sandbox.
    fn ran_in_this_sandbox(&self) -> bool {
        matches!(&self.state, SlotState::Waiting { reason, .. } if reason == CRASH_LOOP)
    }

    /// For the rules of the phase.
    pub(crate) fn seen(&self) -> Seen {
        let now = match self.state {
            SlotState::Waiting { .. } => Now::Waiting,
            _ => self.now(),
        };
        Seen {
            role: self.role,
            now,
            last_succeeded: self.last.as_ref().map(Ended::succeeded),
        }
    }

    /// As `containerStatuses[].ready` says.
    pub(crate) fn is_ready(&self) -> bool {
        match (&self.state, self.role) {
            (SlotState::Ended(ended), Role::Init) => ended.succeeded(),
            (SlotState::Running(_), Role::Init) => false,
            (SlotState::Running(_), _) => self.started && self.ready,
            _ => false,
        }
    }

    /// Ends what belongs to the current run: probes, hooks, the wait for its end.
    pub(crate) fn end_tasks(&mut self) {
        for task in self.tasks.drain(..) {
            task.abort();
        }
        self.stopping = None;
    }
}

/// The reason of a wait after an end.
pub(crate) const CRASH_LOOP: &str = "CrashLoopBackOff";
