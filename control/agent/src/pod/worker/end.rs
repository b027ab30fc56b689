//! A pod's end: because it was deleted, ran its time, or has nothing left to do.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, Preconditions};
use meshgate_api::client::{EventKind, is_conflict, is_not_found};
use tokio::sync::watch;
use tokio::time::Instant;

use super::super::plan::Role;
use super::super::record::PodRecord;
use super::super::sandbox;
use super::super::stop::stop;
use super::{News, Step, Told, Worker};
use crate::paths::PodName;

/// Time to end where nobody set one.
const DEFAULT_GRACE: Duration = Duration::from_secs(30);
/// Time to end of a pod that the API has already forgotten.
const GRACE_WHEN_GONE: Duration = Duration::from_secs(1);
/// Wait before a failed deletion is tried again.
const DELETE_RETRY: Duration = Duration::from_secs(1);

impl Worker {
    /// Whether the pod has to end, and by when.
    pub(super) fn look_for_an_end(&mut self) {
        if self.gone {
            self.end_within(GRACE_WHEN_GONE);
            return;
        }
        let meta = &self.pod.metadata;
        if let Some(at) = &meta.deletion_timestamp {
            let grace = meta
                .deletion_grace_period_seconds
                .and_then(|s| u64::try_from(s).ok())
                .unwrap_or(0);
            // The API's times have no fractions: up to a second was cut off.
            let left = Duration::try_from(at.0.duration_since(Timestamp::now()))
                .unwrap_or_default()
                + Duration::from_secs(1);
            self.end_within(left.min(Duration::from_secs(grace)));
            return;
        }
        let limit = self
            .spec()
            .and_then(|spec| spec.active_deadline_seconds)
            .and_then(|s| u64::try_from(s).ok());
        if let (Some(limit), false) = (limit, self.over) {
            let active = Duration::try_from(Timestamp::now().duration_since(self.start_time))
                .unwrap_or_default();
            match Duration::from_secs(limit).checked_sub(active) {
                Some(left) if !left.is_zero() => self.wake_at(Instant::now() + left),
                _ if self.ending.is_none() => {
                    let message = "Pod was active on the node longer than the specified deadline";
                    self.event(None, EventKind::Normal, "DeadlineExceeded", message);
                    self.verdict = Some(("DeadlineExceeded".to_owned(), message.to_owned()));
                    self.end_within(self.grace());
                }
                _ => {}
            }
        }
    }

    /// Sets the deadline, or brings it forward.
    pub(super) fn end_within(&mut self, grace: Duration) {
        let deadline = Instant::now() + grace;
        self.ending = Some(self.ending.map_or(deadline, |known| known.min(deadline)));
    }

    /// `terminationGracePeriodSeconds`.
    pub(super) fn grace(&self) -> Duration {
        let seconds = self
            .spec()
            .and_then(|spec| spec.termination_grace_period_seconds);
        seconds
            .and_then(|s| u64::try_from(s).ok())
            .map_or(DEFAULT_GRACE, Duration::from_secs)
    }

    /// Stops what runs, in order; when nothing does, removes what is left.
    pub(super) async fn end(&mut self) -> Step {
        let Some(deadline) = self.ending else {
            return Step::Wait(None);
        };
        let running: Vec<usize> = (0..self.slots.len())
            .filter(|at| self.slots[*at].running().is_some())
            .collect();
        let others: Vec<usize> = running
            .iter()
            .copied()
            .filter(|at| self.slots[*at].role != Role::Sidecar)
            .collect();
        // Sidecars serve the others until those have ended; then the last started is the first to go.
        let now = match (others.is_empty(), running.last()) {
            (false, _) => others,
            (true, Some(last)) => vec![*last],
            (true, None) => return self.ended().await,
        };
        for slot in now {
            let message = format!("Stopping container {}", self.slots[slot].name());
            self.stop(slot, deadline, &message);
        }
        self.publish();
        Step::Wait(None)
    }

    /// Stops one container; again only moves its deadline.
    pub(super) fn stop(&mut self, slot: usize, deadline: Instant, message: &str) {
        let Some(running) = self.slots[slot].running().cloned() else {
            return;
        };
        if let Some(stopping) = &self.slots[slot].stopping {
            stopping.send_if_modified(|known| {
                let earlier = deadline < *known;
                *known = deadline.min(*known);
                earlier
            });
            return;
        }
        self.event(Some(slot), EventKind::Normal, "Killing", message);
        let (sender, receiver) = watch::channel(deadline);
        let pre_stop = self.slots[slot]
            .spec
            .lifecycle
            .as_ref()
            .and_then(|lifecycle| lifecycle.pre_stop.clone());
        let (target, tell) = (self.target(slot, &running), self.tell.clone());
        let task = tokio::spawn(async move {
            let id = running.id.clone();
            if let Some(why) = stop(running, pre_stop, target, receiver).await {
                let _ = tell.send(Told {
                    slot,
                    id,
                    news: News::Hook("preStop", why),
                });
            }
        });
        self.slots[slot].stopping = Some(sender);
        self.slots[slot].tasks.push(task.abort_handle());
    }

    /// Nothing runs any more.
    async fn ended(&mut self) -> Step {
        self.over = true;
        self.sandbox_ready = false;
        self.ending = None;
        self.publish();
        self.remove_sandbox().await;
        let deleting = self.pod.metadata.deletion_timestamp.is_some();
        if !self.gone && !deleting {
            self.save();
            return Step::Wait(None);
        }
        if !self.gone {
            if !self.settled {
                // Nobody waits for a status of a pod that cannot be reached; the deletion would remove it anyway.
                tokio::select! {
                    () = self.writer.flushed() => {}
                    _ = &mut self.writing => {}
                }
            }
            if let Err(error) = self.delete().await {
                tracing::debug!(pod = self.record.name, %error, "pod not deleted, trying again");
                self.end_within(Duration::ZERO);
                return Step::Wait(Some(Instant::now() + DELETE_RETRY));
            }
        }
        remove_files(&self.node, &self.record);
        Step::Gone
    }

    /// The second half of a graceful deletion: the API forgets the pod.
    async fn delete(&self) -> Result<(), kube::Error> {
        let api = Api::<Pod>::namespaced(self.node.client.clone(), &self.record.namespace);
        let params = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions {
                uid: Some(self.record.uid.clone()),
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        match api.delete(&self.record.name, &params).await {
            Ok(_) => Ok(()),
            Err(error) if is_not_found(&error) || is_conflict(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn remove_sandbox(&self) {
        remove_sandbox(&self.node, &self.record.uid).await;
    }
}

/// Removes namespaces, mounts, the interface, control groups and volumes in memory of a pod whose containers ended.
pub(crate) async fn remove_sandbox(node: &Arc<super::Node>, uid: &str) {
    if let Err(error) = node.network.detach(uid).await {
        tracing::warn!(
            uid,
            error = crate::shim::chain(&error),
            "the pod's interface stays"
        );
    }
    if let Err(error) = sandbox::remove(&node.paths.pod_run(uid)) {
        tracing::warn!(uid, %error, "the pod's sandbox stays");
    }
    node.cgroups.remove_pod(uid);
}

/// Removes a pod's files. What its containers wrote and their logs go with the pod, as in Kubernetes.
pub(crate) fn remove_files(node: &super::Node, record: &PodRecord) {
    let pod = PodName {
        namespace: &record.namespace,
        name: &record.name,
        uid: &record.uid,
    };
    for id in record
        .containers
        .values()
        .filter_map(|container| container.id.as_ref())
    {
        let _ = fs::remove_dir_all(node.paths.container(id));
    }
    let _ = fs::remove_dir_all(node.paths.pod_logs(pod.namespace, pod.name, pod.uid));
    // The record is in here: last, so that a half-removed pod is found again.
    let _ = fs::remove_dir_all(node.paths.pod_data(pod.uid));
}
