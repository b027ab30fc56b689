//! What a pod's status says.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

use crate::objects::{Condition, Pod, condition};

/// The pod has ended for good.
pub(crate) fn is_finished(pod: &Pod) -> bool {
    matches!(pod.status.phase.as_str(), "Succeeded" | "Failed")
}

/// The pod runs or will: neither ended nor being deleted.
pub(crate) fn is_active(pod: &Pod) -> bool {
    !is_finished(pod) && pod.metadata.deletion_timestamp.is_none()
}

/// The pod's Ready condition, where it holds.
fn ready_condition(pod: &Pod) -> Option<&Condition> {
    condition(&pod.status.conditions, "Ready").filter(|ready| ready.status == "True")
}

/// The pod serves.
pub(crate) fn is_ready(pod: &Pod) -> bool {
    ready_condition(pod).is_some()
}

/// Since when the pod has been ready.
pub(crate) fn ready_since(pod: &Pod) -> Option<Timestamp> {
    Some(ready_condition(pod)?.last_transition_time.as_ref()?.0)
}

/// How far a pod is on its way to count as available.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Availability {
    NotReady,
    /// Ready, but not yet for long enough; how long still.
    In(Duration),
    Available,
}

/// Whether the pod has been ready for `min_ready_seconds`.
pub(crate) fn availability(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> Availability {
    if !is_ready(pod) {
        return Availability::NotReady;
    }
    let min = Duration::from_secs(u64::try_from(min_ready_seconds).unwrap_or(0));
    if min.is_zero() {
        return Availability::Available;
    }
    // A pod that does not say since when starts now.
    let since = ready_since(pod).unwrap_or(now);
    let ready_for = Duration::try_from(now.duration_since(since)).unwrap_or_default();
    match min.checked_sub(ready_for) {
        None | Some(Duration::ZERO) => Availability::Available,
        Some(left) => Availability::In(left),
    }
}
