//! Rows of pods: the one word that sums up what all their containers do.

use jiff::Timestamp;
use serde_json::Value;

use crate::time;
use crate::value::{at, bool_at, int_at, list_at, text_at};

use super::columns::Column;
use super::{age, name, or_none};

pub(super) const COLUMNS: &[Column] = &[
    Column::name(),
    Column::text(
        "Ready",
        "The aggregate readiness state of this pod for accepting traffic.",
    ),
    Column::text(
        "Status",
        "The aggregate status of the containers in this pod.",
    ),
    Column::text(
        "Restarts",
        "The number of times the containers in this pod have been restarted and when the last container in this pod has restarted.",
    ),
    Column::age(),
    Column::text(
        "IP",
        "The address of the pod, reachable from within the cluster.",
    )
    .wide(),
    Column::text("Node", "The node on which the pod was scheduled.").wide(),
    Column::text(
        "Nominated Node",
        "The node on which the pod will run when lower priority pods there have gone.",
    )
    .wide(),
    Column::text(
        "Readiness Gates",
        "Conditions beyond the containers' readiness: how many of them are true.",
    )
    .wide(),
];

pub(super) fn cells(pod: &Value, now: Timestamp) -> Vec<Value> {
    let summary = summarize(pod);
    let restarts = match &summary.last_restart {
        Some(when) if summary.restarts > 0 => {
            format!("{} ({} ago)", summary.restarts, time::age(Some(when), now))
        }
        _ => summary.restarts.to_string(),
    };
    let text = |path: &str| or_none(text_at(pod, path).to_owned());
    vec![
        name(pod),
        format!("{}/{}", summary.ready, summary.total).into(),
        summary.reason.into(),
        restarts.into(),
        age(pod, now),
        text("status.podIP"),
        text("spec.nodeName"),
        text("status.nominatedNodeName"),
        readiness_gates(pod),
    ]
}

struct Summary {
    ready: usize,
    total: usize,
    reason: String,
    restarts: i64,
    last_restart: Option<String>,
}

impl Summary {
    fn count_restarts(&mut self, status: &Value) {
        self.restarts += int_at(status, "restartCount").unwrap_or(0);
        let finished = text_at(status, "lastState.terminated.finishedAt");
        if !finished.is_empty()
            && self
                .last_restart
                .as_deref()
                .is_none_or(|last| last < finished)
        {
            self.last_restart = Some(finished.to_owned());
        }
    }
}

fn summarize(pod: &Value) -> Summary {
    let init_containers = list_at(pod, "spec.initContainers");
    let sidecars = init_containers
        .iter()
        .filter(|container| is_sidecar(container))
        .count();
    let mut summary = Summary {
        ready: 0,
        total: list_at(pod, "spec.containers").len() + sidecars,
        reason: initial_reason(pod),
        restarts: 0,
        last_restart: None,
    };
    let initializing = add_init_containers(pod, init_containers, &mut summary);
    if !initializing || condition(pod, "Initialized") {
        // Once initialized, restarts of init containers that are done no longer count.
        summary.restarts = 0;
        summary.last_restart = None;
        for status in list_at(pod, "status.initContainerStatuses") {
            if is_sidecar_named(init_containers, text_at(status, "name")) {
                summary.count_restarts(status);
            }
        }
        add_containers(pod, &mut summary);
    }
    let phase = text_at(pod, "status.phase");
    if at(pod, "metadata.deletionTimestamp").is_some() {
        if text_at(pod, "status.reason") == "NodeLost" {
            summary.reason = "Unknown".to_owned();
        } else if phase != "Failed" && phase != "Succeeded" {
            summary.reason = "Terminating".to_owned();
        }
    }
    summary
}

fn initial_reason(pod: &Value) -> String {
    let gated = list_at(pod, "status.conditions").iter().any(|one| {
        text_at(one, "type") == "PodScheduled" && text_at(one, "reason") == "SchedulingGated"
    });
    match text_at(pod, "status.reason") {
        _ if gated => "SchedulingGated".to_owned(),
        "" => text_at(pod, "status.phase").to_owned(),
        reason => reason.to_owned(),
    }
}

/// Looks at the init containers up to the first that is not done; returns whether there is one.
fn add_init_containers(pod: &Value, init_containers: &[Value], summary: &mut Summary) -> bool {
    for (index, status) in list_at(pod, "status.initContainerStatuses")
        .iter()
        .enumerate()
    {
        summary.count_restarts(status);
        let exit_code = int_at(status, "state.terminated.exitCode");
        if exit_code == Some(0) {
            continue;
        }
        let sidecar = is_sidecar_named(init_containers, text_at(status, "name"));
        if sidecar && bool_at(status, "started") {
            summary.ready += usize::from(bool_at(status, "ready"));
            continue;
        }
        let waiting = text_at(status, "state.waiting.reason");
        summary.reason = if exit_code.is_some() {
            format!("Init:{}", terminated_reason(status))
        } else if !waiting.is_empty() && waiting != "PodInitializing" {
            format!("Init:{waiting}")
        } else {
            format!("Init:{index}/{}", init_containers.len())
        };
        return true;
    }
    false
}

fn add_containers(pod: &Value, summary: &mut Summary) {
    let mut any_running = false;
    for status in list_at(pod, "status.containerStatuses").iter().rev() {
        summary.count_restarts(status);
        let waiting = text_at(status, "state.waiting.reason");
        if !waiting.is_empty() {
            summary.reason = waiting.to_owned();
        } else if at(status, "state.terminated").is_some() {
            summary.reason = terminated_reason(status);
        } else if bool_at(status, "ready") && at(status, "state.running").is_some() {
            any_running = true;
            summary.ready += 1;
        }
    }
    if summary.reason == "Completed" && any_running {
        summary.reason = if condition(pod, "Ready") {
            "Running"
        } else {
            "NotReady"
        }
        .to_owned();
    }
}

fn terminated_reason(status: &Value) -> String {
    let reason = text_at(status, "state.terminated.reason");
    if !reason.is_empty() {
        return reason.to_owned();
    }
    match int_at(status, "state.terminated.signal") {
        Some(signal) if signal != 0 => format!("Signal:{signal}"),
        _ => format!(
            "ExitCode:{}",
            int_at(status, "state.terminated.exitCode").unwrap_or(0)
        ),
    }
}

fn is_sidecar(container: &Value) -> bool {
    text_at(container, "restartPolicy") == "Always"
}

fn is_sidecar_named(init_containers: &[Value], name: &str) -> bool {
    init_containers
        .iter()
        .any(|one| text_at(one, "name") == name && is_sidecar(one))
}

fn condition(pod: &Value, kind: &str) -> bool {
    let conditions = list_at(pod, "status.conditions");
    conditions
        .iter()
        .any(|one| text_at(one, "type") == kind && text_at(one, "status") == "True")
}

fn readiness_gates(pod: &Value) -> Value {
    let gates = list_at(pod, "spec.readinessGates");
    if gates.is_empty() {
        return "<none>".into();
    }
    let open = gates
        .iter()
        .filter(|gate| condition(pod, text_at(gate, "conditionType")))
        .count();
    format!("{open}/{}", gates.len()).into()
}
