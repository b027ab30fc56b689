//! What a Deployment says of itself: counts, Available, Progressing, ReplicaFailure.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

use super::plan::{View, progressing};
use crate::conditions::whole_seconds;
use crate::objects::{Condition, DeploymentStatus, condition};

/// Seconds without progress where the Deployment does not say.
const PROGRESS_DEADLINE_SECONDS: i32 = 600;
/// A deadline of this many seconds is none.
const NO_DEADLINE: i32 = i32::MAX;

/// The status now, and when the progress deadline passes. `created` is the ReplicaSet that this step creates.
pub(crate) fn status(
    view: &View<'_>,
    created: Option<&str>,
    now: Timestamp,
) -> (DeploymentStatus, Option<Duration>) {
    let deployment = view.deployment;
    let mut status = counts(view);
    status.observed_generation = deployment.metadata.generation.unwrap_or(0);
    status.collision_count = deployment.status.collision_count;
    let mut conditions = deployment.status.conditions.clone();
    set(&mut conditions, available(view, &status), now);
    let progress = progress(view, &status, created, now);
    let look_again = progress
        .as_ref()
        .and_then(|_| deadline(view))
        .and_then(|deadline| {
            let progress = progress.as_ref()?;
            let waiting = !matches!(
                progress.reason,
                "NewReplicaSetAvailable" | "ProgressDeadlineExceeded"
            );
            let updated = match progress.renewed {
                true => now,
                false => progressing(deployment)?.last_update_time.as_ref()?.0,
            };
            let passed = Duration::try_from(now.duration_since(updated)).unwrap_or_default();
            // A second more, since times are kept in whole seconds.
            waiting.then(|| deadline.saturating_sub(passed) + Duration::from_secs(1))
        });
    match progress {
        Some(progress) => set_progress(&mut conditions, progress, now),
        None => conditions.retain(|condition| condition.type_ != "Progressing"),
    }
    match failure(view) {
        Some(failure) => set(&mut conditions, failure, now),
        None => conditions.retain(|condition| condition.type_ != "ReplicaFailure"),
    }
    status.conditions = conditions;
    (status, look_again)
}

fn counts(view: &View<'_>) -> DeploymentStatus {
    let available = view.all().map(|rs| rs.status.available_replicas).sum();
    DeploymentStatus {
        replicas: view.all().map(|rs| rs.status.replicas).sum(),
        updated_replicas: view.new.map_or(0, |rs| rs.status.replicas),
        ready_replicas: view.all().map(|rs| rs.status.ready_replicas).sum(),
        available_replicas: available,
        unavailable_replicas: (view.told() - available).max(0),
        ..DeploymentStatus::default()
    }
}

/// Whether all pods are of the present template and available, and no old one is left.
pub(crate) fn is_complete(view: &View<'_>) -> bool {
    is_done(view, &counts(view))
}

fn is_done(view: &View<'_>, status: &DeploymentStatus) -> bool {
    let wanted = view.wanted();
    view.new.is_some()
        && status.updated_replicas == wanted
        && status.replicas == wanted
        && status.available_replicas == wanted
}

struct Wanted {
    type_: &'static str,
    status: &'static str,
    reason: String,
    message: String,
}

fn available(view: &View<'_>, status: &DeploymentStatus) -> Wanted {
    let enough = status.available_replicas >= view.wanted() - view.unavailable;
    let (word, reason, message) = if enough {
        (
            "True",
            "MinimumReplicasAvailable",
            "Deployment has minimum availability.",
        )
    } else {
        (
            "False",
            "MinimumReplicasUnavailable",
            "Deployment does not have minimum availability.",
        )
    };
    Wanted {
        type_: "Available",
        status: word,
        reason: reason.to_owned(),
        message: message.to_owned(),
    }
}

/// A ReplicaSet that cannot create or delete its pods, the present template's first.
fn failure(view: &View<'_>) -> Option<Wanted> {
    let failed = view.new.into_iter().chain(view.old.iter().copied());
    let failure = failed
        .filter_map(|rs| condition(&rs.status.conditions, "ReplicaFailure"))
        .next()?;
    Some(Wanted {
        type_: "ReplicaFailure",
        status: "True",
        reason: failure.reason.clone(),
        message: failure.message.clone(),
    })
}

struct Progress {
    status: &'static str,
    reason: &'static str,
    message: String,
    /// Whether progress was made: the deadline starts anew.
    renewed: bool,
}

fn deadline(view: &View<'_>) -> Option<Duration> {
    match view
        .deployment
        .spec
        .progress_deadline_seconds
        .unwrap_or(PROGRESS_DEADLINE_SECONDS)
    {
        NO_DEADLINE => None,
        seconds => Some(Duration::from_secs(u64::try_from(seconds).unwrap_or(0))),
    }
}

/// How the rollout goes; nothing without a deadline.
fn progress(
    view: &View<'_>,
    status: &DeploymentStatus,
    created: Option<&str>,
    now: Timestamp,
) -> Option<Progress> {
    let deadline = deadline(view)?;
    let known = progressing(view.deployment);
    let reason = known.map(|known| known.reason.as_str()).unwrap_or_default();
    let name = view
        .new
        .and_then(|rs| rs.metadata.name.as_deref())
        .or(created);
    let subject = match name {
        Some(name) => format!("ReplicaSet \"{name}\""),
        None => format!(
            "Deployment \"{}\"",
            view.deployment.metadata.name.as_deref().unwrap_or_default()
        ),
    };
    let say = |status, reason, message, renewed| {
        Some(Progress {
            status,
            reason,
            message,
            renewed,
        })
    };
    if view.deployment.spec.paused {
        return match (known, reason) {
            // What is over stays as it was.
            (Some(known), "DeploymentPaused" | "ProgressDeadlineExceeded") => keep(known),
            _ => say(
                "Unknown",
                "DeploymentPaused",
                "Deployment is paused".to_owned(),
                true,
            ),
        };
    }
    if let Some(created) = created {
        return say(
            "True",
            "NewReplicaSetCreated",
            format!("Created new replica set \"{created}\""),
            true,
        );
    }
    if is_done(view, status) {
        return match known {
            Some(known)
                if reason == "NewReplicaSetAvailable" && known.message.contains(&subject) =>
            {
                keep(known)
            }
            _ => say(
                "True",
                "NewReplicaSetAvailable",
                format!("{subject} has successfully progressed."),
                true,
            ),
        };
    }
    if reason == "DeploymentPaused" {
        return say(
            "Unknown",
            "DeploymentResumed",
            "Deployment is resumed".to_owned(),
            true,
        );
    }
    let Some(known) = known else {
        let message = format!("Found new replica set \"{}\"", name.unwrap_or_default());
        return say("True", "FoundNewReplicaSet", message, true);
    };
    // What the condition says is of another ReplicaSet: a template that came back starts a rollout of its own.
    if let Some(name) = name
        && known.message.contains('"')
        && !known.message.contains(&format!("\"{name}\""))
    {
        return say(
            "True",
            "FoundNewReplicaSet",
            format!("Found new replica set \"{name}\""),
            true,
        );
    }
    if has_progressed(&view.deployment.status, status) {
        return say(
            "True",
            "ReplicaSetUpdated",
            format!("{subject} is progressing."),
            true,
        );
    }
    // A rollout that has succeeded cannot fail any more: pods that are lost later are no matter of it.
    let is_over = matches!(
        reason,
        "NewReplicaSetAvailable" | "ProgressDeadlineExceeded"
    );
    let since = known.last_update_time.as_ref().map_or(now, |time| time.0);
    let passed = Duration::try_from(now.duration_since(since)).unwrap_or_default();
    if !is_over && passed >= deadline {
        return say(
            "False",
            "ProgressDeadlineExceeded",
            format!("{subject} has timed out progressing."),
            true,
        );
    }
    keep(known)
}

fn keep(known: &Condition) -> Option<Progress> {
    const REASONS: [&str; 8] = [
        "NewReplicaSetCreated",
        "FoundNewReplicaSet",
        "ReplicaSetUpdated",
        "NewReplicaSetAvailable",
        "ProgressDeadlineExceeded",
        "DeploymentPaused",
        "DeploymentResumed",
        "ReplicaSetCreateError",
    ];
    let status = match known.status.as_str() {
        "True" => "True",
        "False" => "False",
        _ => "Unknown",
    };
    let reason = REASONS
        .into_iter()
        .find(|reason| *reason == known.reason)
        .unwrap_or("ReplicaSetUpdated");
    Some(Progress {
        status,
        reason,
        message: known.message.clone(),
        renewed: false,
    })
}

fn has_progressed(before: &DeploymentStatus, now: &DeploymentStatus) -> bool {
    now.updated_replicas > before.updated_replicas
        || now.replicas - now.updated_replicas < before.replicas - before.updated_replicas
        || now.ready_replicas > before.ready_replicas
        || now.available_replicas > before.available_replicas
}

fn set_progress(conditions: &mut Vec<Condition>, progress: Progress, now: Timestamp) {
    if !progress.renewed {
        return;
    }
    let reason = progress.reason.to_owned();
    let wanted = Wanted {
        type_: "Progressing",
        status: progress.status,
        reason,
        message: progress.message,
    };
    let updated = condition(conditions, "Progressing").is_some_and(|known| same(known, &wanted));
    if updated {
        // Nothing new to say, but the deadline starts anew.
        for known in conditions
            .iter_mut()
            .filter(|known| known.type_ == "Progressing")
        {
            known.last_update_time = Some(whole_seconds(now));
        }
    }
    set(conditions, wanted, now);
}

fn same(known: &Condition, wanted: &Wanted) -> bool {
    known.status == wanted.status
        && known.reason == wanted.reason
        && known.message == wanted.message
}

/// Sets a condition; its times change only with what it says.
fn set(conditions: &mut Vec<Condition>, wanted: Wanted, now: Timestamp) {
    let known = conditions
        .iter()
        .position(|condition| condition.type_ == wanted.type_);
    let transition = match known.map(|i| &conditions[i]) {
        Some(known) if same(known, &wanted) => return,
        Some(known) if known.status == wanted.status => known.last_transition_time.clone(),
        _ => Some(whole_seconds(now)),
    };
    let condition = Condition {
        type_: wanted.type_.to_owned(),
        status: wanted.status.to_owned(),
        last_update_time: Some(whole_seconds(now)),
        last_transition_time: transition,
        reason: wanted.reason,
        message: wanted.message,
    };
    match known {
        Some(i) => conditions[i] = condition,
        None => conditions.push(condition),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::super::plan::plan;
    use crate::objects::{Deployment, ReplicaSet, condition};

    /// `known` is the Progressing condition so far, 60 s old: reason and message; `ready` pods of 2 wanted. The answer
    /// is the reason then, and after how many seconds to look again.
    fn check(known: (&str, &str), ready: i32, deadline: i32, expected: (&str, Option<u64>)) {
        let template = json!({"spec": {"containers": []}});
        let status = json!({"type": "Progressing", "status": "True", "reason": known.0, "message": known.1,
            "lastUpdateTime": "2026-01-01T00:00:00Z", "lastTransitionTime": "2026-01-01T00:00:00Z"});
        let deployment: Deployment = serde_json::from_value(json!({
            "metadata": {"name": "web", "uid": "d", "annotations": {"deployment.kubernetes.io/revision": "1"}},
            "spec": {"replicas": 2, "selector": {}, "template": template, "progressDeadlineSeconds": deadline},
            "status": {"replicas": 2, "updatedReplicas": 2, "readyReplicas": 1, "availableReplicas": 1,
                "conditions": [status]},
        }))
        .expect("a Deployment");
        let replica_set: ReplicaSet = serde_json::from_value(json!({
            "metadata": {"name": "web-a", "annotations": {"deployment.kubernetes.io/revision": "1"}},
            "spec": {"replicas": 2, "selector": {}, "template": template},
            "status": {"replicas": 2, "readyReplicas": ready, "availableReplicas": ready},
        }))
        .expect("a ReplicaSet");
        let now = "2026-01-01T00:01:00Z".parse().expect("a time");
        let plan = plan(&deployment, &[Arc::new(replica_set)], &[], now);
        let progressing = condition(&plan.status.conditions, "Progressing").expect("set");
        let look_again = plan.look_again.map(|wait| wait.as_secs());
        assert_eq!(
            (progressing.reason.as_str(), look_again),
            expected,
            "{known:?} {ready} of 2"
        );
    }

    #[test]
    fn progress_and_its_deadline() {
        let of_a = "ReplicaSet \"web-a\" says something.";
        check(
            ("ReplicaSetUpdated", of_a),
            2,
            600,
            ("NewReplicaSetAvailable", None),
        );
        check(
            ("ReplicaSetUpdated", of_a),
            1,
            600,
            ("ReplicaSetUpdated", Some(541)),
        );
        check(
            ("ReplicaSetUpdated", of_a),
            1,
            60,
            ("ProgressDeadlineExceeded", None),
        );
        check(
            ("ProgressDeadlineExceeded", of_a),
            1,
            60,
            ("ProgressDeadlineExceeded", None),
        );
        check(
            ("ProgressDeadlineExceeded", of_a),
            2,
            60,
            ("NewReplicaSetAvailable", None),
        );
        check(
            ("NewReplicaSetAvailable", of_a),
            1,
            60,
            ("NewReplicaSetAvailable", None),
        );
        // The template came back after another one had failed or succeeded.
        let of_b = "ReplicaSet \"web-b\" says something.";
        check(
            ("ProgressDeadlineExceeded", of_b),
            1,
            60,
            ("FoundNewReplicaSet", Some(61)),
        );
        check(
            ("NewReplicaSetAvailable", of_b),
            1,
            60,
            ("FoundNewReplicaSet", Some(61)),
        );
        check(
            ("DeploymentResumed", "Deployment is resumed"),
            1,
            60,
            ("ProgressDeadlineExceeded", None),
        );
    }
}
