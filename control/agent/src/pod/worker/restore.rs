//! Taking up a pod: from its record, the files of its shims, and what the API remembers.

use std::sync::Arc;

use k8s_openapi::api::core::v1::ContainerStatus;

use super::super::launch::termination_path;
use super::super::plan::Role;
use super::super::record::{Ended, PodRecord};
use super::super::slot::SlotState;
use super::{News, Told, Worker};
use crate::container::{Adopted, Running, adopt};
use crate::paths::PodName;
use crate::probe::{self, Probes, Target};
use crate::shim::files::Exit;

/// Exit code of a run whose end nobody saw.
const UNKNOWN_CODE: i32 = 137;
/// A container may say this much about its end, in bytes.
const MESSAGE_BYTES_MAX: usize = 4096;
/// Taken from its log instead, where it wants that.
const MESSAGE_LOG_BYTES_MAX: usize = 2048;

impl Worker {
    /// Finds out what there is already.
    pub(super) fn restore(&mut self) {
        let dir = self.node.paths.pod_data(&self.record.uid);
        match PodRecord::read(&dir) {
            Ok(record) => self.record = record,
            Err(_) => self.remember_from_status(),
        }
        self.sandbox_ready = self.sandbox.exists();
        if !self.sandbox_ready {
            self.record.initialized = false;
        }
        for slot in 0..self.slots.len() {
            self.restore_container(slot);
        }
        let phase = self
            .pod
            .status
            .as_ref()
            .and_then(|status| status.phase.as_deref());
        if matches!(phase, Some("Succeeded" | "Failed")) {
            self.over = true;
            self.settled = true;
        }
    }

    fn restore_container(&mut self, slot: usize) {
        let name = self.slots[slot].name().to_owned();
        let Some(known) = self.record.containers.get(&name).cloned() else {
            return;
        };
        let state = &mut self.slots[slot];
        state.run = known.run;
        state.last = known.last;
        state.image_id = known.image_id;
        state.started = known.started;
        let Some(id) = known.id else { return };
        if let Some(ended) = known.ended {
            self.set_ended(slot, ended);
            return;
        }
        match adopt(&self.node.paths.container(&id), &id) {
            Adopted::Running(running) => {
                tracing::info!(
                    namespace = self.record.namespace,
                    pod = self.record.name,
                    container = name,
                    "running container taken up"
                );
                // What was ready stays so until its probe says otherwise: a new agent is no reason to lose traffic.
                self.slots[slot].ready =
                    self.was_ready(&name) || self.slots[slot].spec.readiness_probe.is_none();
                let started = self.slots[slot].started;
                self.attach(slot, running, started);
            }
            Adopted::Ended(exit) => {
                let ended = self.describe_end(slot, &id, &exit);
                self.set_ended(slot, ended);
            }
            Adopted::Lost => self.set_ended(slot, lost(&id)),
        }
    }

    /// A run that ended before this sandbox was made counts as history only, for what must run in each sandbox.
    fn set_ended(&mut self, slot: usize, ended: Ended) {
        let state = &mut self.slots[slot];
        state.ready = false;
        if state.role == Role::Init && !self.sandbox_ready {
            state.last = Some(ended);
        } else {
            state.state = SlotState::Ended(ended);
        }
    }

    fn was_ready(&self, name: &str) -> bool {
        self.statuses()
            .any(|status| status.name == name && status.ready)
    }

    fn statuses(&self) -> impl Iterator<Item = &ContainerStatus> {
        self.pod.status.iter().flat_map(|status| {
            let inits = status.init_container_statuses.iter().flatten();
            inits.chain(status.container_statuses.iter().flatten())
        })
    }

    /// This node's files are gone, but the API tells of earlier runs: counts go on.
    fn remember_from_status(&mut self) {
        let known: Vec<ContainerStatus> = self.statuses().cloned().collect();
        for status in known {
            let Some(id) = status.container_id.as_deref().filter(|id| !id.is_empty()) else {
                continue;
            };
            let id = id.rsplit('/').next().unwrap_or_default().to_owned();
            let ended = status
                .state
                .as_ref()
                .and_then(|state| state.terminated.as_ref())
                .map_or_else(
                    || lost(&id),
                    |ended| Ended {
                        id: id.clone(),
                        code: ended.exit_code,
                        signal: ended.signal,
                        reason: ended.reason.clone().unwrap_or_default(),
                        message: ended.message.clone().unwrap_or_default(),
                        started_at: ended.started_at.as_ref().map(|time| time.0),
                        finished_at: ended.finished_at.as_ref().map(|time| time.0),
                    },
                );
            let record = self.record.container(&status.name);
            record.run = u32::try_from(status.restart_count).unwrap_or(0);
            record.image_id = status.image_id;
            record.id = Some(id);
            record.ended = Some(ended);
        }
    }

    /// A container runs: its end and its probes are waited for from now on.
    pub(super) fn attach(&mut self, slot: usize, running: Running, started: bool) {
        let running = Arc::new(running);
        let (id, tell) = (running.id.clone(), self.tell.clone());
        let watched = Arc::clone(&running);
        let exit = tokio::spawn(async move {
            let exit = watched.exited().await;
            // A worker that is gone does not care.
            let _ = tell.send(Told {
                slot,
                id,
                news: News::Exited(exit),
            });
        });
        let target = self.target(slot, &running);
        let state = &mut self.slots[slot];
        let probes = Probes {
            startup: state
                .probe(&state.spec.startup_probe)
                .filter(|_| !started)
                .cloned(),
            readiness: state.probe(&state.spec.readiness_probe).cloned(),
            liveness: state.probe(&state.spec.liveness_probe).cloned(),
        };
        state.started = started || probes.startup.is_none();
        state.tasks.push(exit.abort_handle());
        if probes.startup.is_some() || probes.readiness.is_some() || probes.liveness.is_some() {
            let (id, tell) = (running.id.clone(), self.tell.clone());
            let tell = move |news| {
                let _ = tell.send(Told {
                    slot,
                    id: id.clone(),
                    news: News::Probe(news),
                });
            };
            let task = tokio::spawn(probe::run(probes, target, tell));
            state.tasks.push(task.abort_handle());
        }
        state.state = SlotState::Running(running);
    }

    /// Where a container is probed and its hooks run.
    pub(super) fn target(&self, slot: usize, running: &Running) -> Target {
        let node = self.node.address;
        Target {
            netns: self.sandbox.network(),
            address: match self.sandbox.network() {
                Some(_) => self.record.address.unwrap_or(node),
                None => node,
            },
            ports: Target::ports(&self.slots[slot].spec),
            binary: self.node.binary.clone(),
            dir: running.dir().to_owned(),
        }
    }

    /// A run has ended.
    pub(super) fn exited(&mut self, slot: usize, id: &str, exit: &Exit) {
        let ended = self.describe_end(slot, id, exit);
        let (pod, container) = (&self.record.name, self.slots[slot].name());
        tracing::info!(
            namespace = self.record.namespace,
            pod,
            container,
            code = ended.code,
            reason = ended.reason,
            "container ended"
        );
        let state = &mut self.slots[slot];
        state.end_tasks();
        state.ready = false;
        state.started = false;
        state.state = SlotState::Ended(ended);
        self.save();
        // Everything that mattered of it is in the record now.
        let _ = std::fs::remove_dir_all(self.node.paths.container(id));
    }

    fn describe_end(&self, slot: usize, id: &str, exit: &Exit) -> Ended {
        let reason = match exit.code {
            _ if exit.oom_killed && exit.code != 0 => "OOMKilled",
            0 => "Completed",
            _ => "Error",
        };
        Ended {
            id: id.to_owned(),
            code: exit.code,
            signal: exit.signal,
            reason: reason.to_owned(),
            message: self.last_words(slot, exit.code),
            started_at: Some(exit.started_at),
            finished_at: Some(exit.finished_at),
        }
    }

    /// What the container wrote about its end, or the end of its log.
    fn last_words(&self, slot: usize, code: i32) -> String {
        let state = &self.slots[slot];
        let files = self
            .node
            .paths
            .container_data(&self.record.uid, state.name(), state.run);
        // Mounted over a file of the container's, wherever that is.
        let _ = termination_path(&state.spec);
        let text = std::fs::read(files.join("termination-log")).unwrap_or_default();
        let fallback =
            state.spec.termination_message_policy.as_deref() == Some("FallbackToLogsOnError");
        if text.is_empty() && fallback && code != 0 {
            let pod = PodName {
                namespace: &self.record.namespace,
                name: &self.record.name,
                uid: &self.record.uid,
            };
            let log = self.node.paths.log(pod, state.name(), state.run);
            return crate::server::tail(&log, MESSAGE_LOG_BYTES_MAX);
        }
        let text = &text[..text.len().min(MESSAGE_BYTES_MAX)];
        String::from_utf8_lossy(text).into_owned()
    }
}

fn lost(id: &str) -> Ended {
    Ended {
        id: id.to_owned(),
        code: UNKNOWN_CODE,
        signal: None,
        reason: "ContainerStatusUnknown".to_owned(),
        message: "The container could not be located when the pod was taken up again".to_owned(),
        started_at: None,
        finished_at: None,
    }
}
