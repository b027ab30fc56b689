//! `status` of a pod as the node sees it: a value made from the slots.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodSpec};
use serde_json::{Value, json};

use super::phase::Phase;
use super::plan::Role;
use super::record::Ended;
use super::slot::{Slot, SlotState};

/// Prefix of container ids: which runtime made them.
const RUNTIME: &str = "meshgate://";

/// The state of a pod that is not in its containers.
pub(crate) struct PodState<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) slots: &'a [Slot],
    pub(crate) phase: Phase,
    pub(crate) initialized: bool,
    pub(crate) sandbox_ready: bool,
    pub(crate) pod_ip: Option<String>,
    pub(crate) host_ip: &'a str,
    pub(crate) start_time: Timestamp,
    /// Why the node ended the pod: reason and message.
    pub(crate) verdict: Option<(&'a str, &'a str)>,
    pub(crate) deleting: bool,
}

/// The whole status. Conditions carry no times: see [`Times`].
pub(crate) fn status(state: &PodState<'_>) -> Value {
    let of = |roles: &[Role]| -> Vec<&Slot> {
        state
            .slots
            .iter()
            .filter(|slot| roles.contains(&slot.role))
            .collect()
    };
    let inits = of(&[Role::Init, Role::Sidecar]);
    let mains = of(&[Role::Main]);
    let mut status = json!({
        "observedGeneration": state.pod.metadata.generation,
        "phase": state.phase.name(),
        "hostIP": state.host_ip,
        "hostIPs": [{"ip": state.host_ip}],
        "startTime": seconds(state.start_time),
        "qosClass": state.pod.spec.as_ref().map(qos_class),
        "conditions": conditions(state, &inits, &mains),
        "containerStatuses": mains.iter().map(|slot| container(slot)).collect::<Vec<_>>(),
    });
    if let Some(ip) = &state.pod_ip {
        status["podIP"] = json!(ip);
        status["podIPs"] = json!([{"ip": ip}]);
    }
    if !inits.is_empty() {
        status["initContainerStatuses"] = inits.iter().map(|slot| container(slot)).collect();
    }
    if let Some((reason, message)) = state.verdict {
        status["reason"] = json!(reason);
        status["message"] = json!(message);
    }
    status
}

fn conditions(state: &PodState<'_>, inits: &[&Slot], mains: &[&Slot]) -> Value {
    let unready: Vec<&str> = mains
        .iter()
        .chain(inits.iter().filter(|slot| slot.role == Role::Sidecar))
        .filter(|slot| !slot.is_ready())
        .map(|slot| slot.name())
        .collect();
    let incomplete: Vec<&str> = inits
        .iter()
        .filter(|slot| match slot.role {
            Role::Sidecar => !slot.started,
            _ => !slot.is_ready(),
        })
        .map(|slot| slot.name())
        .collect();
    let over = state.phase.is_terminal();
    let initialized = match (state.initialized, state.phase) {
        (true, _) | (_, Phase::Succeeded) => condition("Initialized", None),
        _ => condition(
            "Initialized",
            Some((
                "ContainersNotInitialized",
                format!(
                    "containers with incomplete status: [{}]",
                    incomplete.join(" ")
                ),
            )),
        ),
    };
    let not_ready = match state.phase {
        Phase::Succeeded => Some(("PodCompleted", String::new())),
        Phase::Failed => Some(("PodFailed", String::new())),
        _ if unready.is_empty() => None,
        _ => Some((
            "ContainersNotReady",
            format!("containers with unready status: [{}]", unready.join(" ")),
        )),
    };
    let ready = match (&not_ready, missing_gates(state.pod)) {
        (None, Some(message)) => Some(("ReadinessGatesNotReady", message)),
        (other, _) => other.clone(),
    };
    json!([
        match state.sandbox_ready
            && !(over || state.deleting && mains.iter().all(|slot| slot.running().is_none()))
        {
            true => condition("PodReadyToStartContainers", None),
            false => condition("PodReadyToStartContainers", Some(("", String::new()))),
        },
        initialized,
        condition("Ready", ready),
        condition("ContainersReady", not_ready),
        condition("PodScheduled", None),
    ])
}

/// True, or false with reason and message.
fn condition(kind: &str, wrong: Option<(&str, String)>) -> Value {
    let mut condition =
        json!({"type": kind, "status": if wrong.is_none() { "True" } else { "False" }});
    if let Some((reason, message)) = wrong {
        if !reason.is_empty() {
            condition["reason"] = json!(reason);
        }
        if !message.is_empty() {
            condition["message"] = json!(message);
        }
    }
    condition
}

fn missing_gates(pod: &Pod) -> Option<String> {
    let gates = pod.spec.as_ref()?.readiness_gates.as_ref()?;
    let conditions = pod
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref());
    let missing: Vec<String> = gates
        .iter()
        .filter(|gate| {
            !conditions.into_iter().flatten().any(|condition| {
                condition.type_ == gate.condition_type && condition.status == "True"
            })
        })
        .map(|gate| {
            format!(
                "corresponding condition of pod readiness gate {:?} is not \"True\".",
                gate.condition_type
            )
        })
        .collect();
    (!missing.is_empty()).then(|| missing.join(" "))
}

fn container(slot: &Slot) -> Value {
    let mut status = json!({
        "name": slot.name(),
        "image": slot.spec.image,
        "imageID": slot.image_id,
        "restartCount": slot.run,
        "ready": slot.is_ready(),
        "started": slot.running().is_some() && slot.started,
        "state": current(slot),
        "lastState": match &slot.last {
            Some(ended) => json!({"terminated": terminated(ended)}),
            None => json!({}),
        },
    });
    let id = match &slot.state {
        SlotState::Running(running) => Some(&running.id),
        SlotState::Ended(ended) => Some(&ended.id),
        // Shown until the next run has one of its own.
        SlotState::Waiting { .. } => slot.last.as_ref().map(|ended| &ended.id),
    };
    if let Some(id) = id.filter(|id| !id.is_empty()) {
        status["containerID"] = json!(format!("{RUNTIME}{id}"));
    }
    status
}

fn current(slot: &Slot) -> Value {
    match &slot.state {
        SlotState::Running(running) => {
            json!({"running": {"startedAt": seconds(running.started_at)}})
        }
        SlotState::Ended(ended) => json!({"terminated": terminated(ended)}),
        SlotState::Waiting { reason, message } => {
            let mut waiting = json!({"reason": reason});
            if !message.is_empty() {
                waiting["message"] = json!(message);
            }
            json!({"waiting": waiting})
        }
    }
}

fn terminated(ended: &Ended) -> Value {
    let mut value = json!({
        "exitCode": ended.code,
        "reason": ended.reason,
        "startedAt": ended.started_at.map(seconds),
        "finishedAt": ended.finished_at.map(seconds),
    });
    if let Some(signal) = ended.signal {
        value["signal"] = json!(signal);
    }
    if !ended.message.is_empty() {
        value["message"] = json!(ended.message);
    }
    if !ended.id.is_empty() {
        value["containerID"] = json!(format!("{RUNTIME}{}", ended.id));
    }
    value
}

/// `Time` of the API knows no fractions.
pub(crate) fn seconds(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Guaranteed: every container's limits of CPU and memory are set and equal its requests; BestEffort: nothing is set.
fn qos_class(spec: &PodSpec) -> &'static str {
    let mut any = false;
    let mut guaranteed = true;
    for container in spec
        .init_containers
        .iter()
        .flatten()
        .chain(&spec.containers)
    {
        let resources = container.resources.as_ref();
        let limits = resources.and_then(|resources| resources.limits.as_ref());
        let requests = resources.and_then(|resources| resources.requests.as_ref());
        for what in ["cpu", "memory"] {
            let limit = limits.and_then(|map| map.get(what));
            let request = requests.and_then(|map| map.get(what)).or(limit);
            any |= limit.is_some() || request.is_some();
            guaranteed &= limit.is_some() && limit == request;
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

/// When each condition last changed.
#[derive(Debug, Default)]
pub(crate) struct Times {
    /// By type: status and time.
    known: BTreeMap<String, (String, String)>,
}

impl Times {
    /// From what the API says, so that a new agent changes nothing.
    pub(crate) fn of_pod(pod: &Pod) -> Times {
        let conditions = pod
            .status
            .iter()
            .flat_map(|status| status.conditions.iter().flatten());
        let known = conditions
            .filter_map(|condition| {
                let at = condition.last_transition_time.as_ref()?;
                Some((
                    condition.type_.clone(),
                    (condition.status.clone(), seconds(at.0)),
                ))
            })
            .collect();
        Times { known }
    }

    /// Writes the times into a status.
    pub(crate) fn apply(&mut self, status: &mut Value, now: Timestamp) {
        let conditions = status["conditions"].as_array_mut();
        for condition in conditions.into_iter().flatten() {
            let text = |key: &str| condition[key].as_str().unwrap_or_default().to_owned();
            let (kind, value) = (text("type"), text("status"));
            let known = self
                .known
                .entry(kind)
                .or_insert_with(|| (String::new(), String::new()));
            if known.0 != value {
                *known = (value, seconds(now));
            }
            condition["lastTransitionTime"] = json!(known.1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(spec: Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).expect("a Pod")
    }

    #[test]
    fn classes_of_service() {
        let check = |resources: Value, wanted: &str| {
            let pod = pod(json!({"containers": [{"name": "c", "resources": resources}]}));
            assert_eq!(qos_class(pod.spec.as_ref().expect("a spec")), wanted);
        };
        check(json!({}), "BestEffort");
        check(json!({"requests": {"cpu": "1"}}), "Burstable");
        check(
            json!({"limits": {"cpu": "1", "memory": "1Gi"}}),
            "Guaranteed",
        );
        check(
            json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}}),
            "Burstable",
        );
    }

    #[test]
    fn times_change_with_the_status_only() {
        let mut times = Times::default();
        let at = |second| Timestamp::from_second(second).expect("in range");
        let shown = |times: &mut Times, value: &str, second| {
            let mut status = json!({"conditions": [{"type": "Ready", "status": value}]});
            times.apply(&mut status, at(second));
            status["conditions"][0]["lastTransitionTime"].clone()
        };
        assert_eq!(shown(&mut times, "False", 1), "1970-01-01T00:00:01Z");
        assert_eq!(shown(&mut times, "False", 2), "1970-01-01T00:00:01Z");
        assert_eq!(shown(&mut times, "True", 3), "1970-01-01T00:00:03Z");
    }

    #[test]
    fn a_new_pod_waits() {
        let pod = pod(
            json!({"initContainers": [{"name": "i"}], "containers": [{"name": "c", "image": "x"}]}),
        );
        let slots = Slot::of_pod(&pod);
        let status = status(&PodState {
            pod: &pod,
            slots: &slots,
            phase: Phase::Pending,
            initialized: false,
            sandbox_ready: false,
            pod_ip: None,
            host_ip: "10.88.0.10",
            start_time: Timestamp::UNIX_EPOCH,
            verdict: None,
            deleting: false,
        });
        assert_eq!(
            status["containerStatuses"][0]["state"]["waiting"]["reason"],
            "PodInitializing"
        );
        let shown: Vec<String> = status["conditions"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|c| format!("{}={} {}", c["type"], c["status"], c["message"]).replace('"', ""))
            .collect();
        assert_eq!(
            shown,
            [
                "PodReadyToStartContainers=False null",
                "Initialized=False containers with incomplete status: [i]",
                "Ready=False containers with unready status: [c]",
                "ContainersReady=False containers with unready status: [c]",
                "PodScheduled=True null",
            ]
        );
    }
}
