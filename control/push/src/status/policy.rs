//! Policies: conditions for each target, as in Gateway API's policy attachment (GEP-713).

use jiff::Timestamp;
use meshgate_api::names;
use serde_json::{Map, Value, json};

use super::{Shared, Tracked, Written};
use crate::{
    compile::{Ancestor, PolicyReport, ResourceKind, Subject},
    xds::replicas::Progress,
};

impl Shared {
    pub(super) async fn write_policy(
        &self,
        subject: &Subject,
        report: &PolicyReport,
        tracked: &Tracked,
    ) -> Result<Written, kube::Error> {
        let progress: Vec<Progress> = report
            .ancestors
            .iter()
            .map(|ancestor| {
                self.replicas
                    .progress_of(&ancestor.affects, tracked.generation, &self.table)
            })
            .collect();
        let wanted = ancestors(report, &progress, &now());
        if wanted != report.observed {
            self.patch(subject, json!({ "ancestors": wanted })).await?;
        }
        let settled = report
            .ancestors
            .iter()
            .zip(&progress)
            .all(|(ancestor, progress)| {
                ancestor.verdict.is_err() || programmed(ancestor, progress).0 == "True"
            });
        Ok(Written {
            settled,
            ..Written::default()
        })
    }
}

/// As Kubernetes writes times: to the second.
fn now() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// `status.ancestors`: ours anew, those of other controllers as they are.
fn ancestors(report: &PolicyReport, progress: &[Progress], now: &str) -> Vec<Value> {
    let ours = |value: &&Value| value["controllerName"] == names::POLICY_CONTROLLER;
    let mut wanted: Vec<Value> = report
        .observed
        .iter()
        .filter(|value| !ours(value))
        .cloned()
        .collect();
    for (ancestor, progress) in report.ancestors.iter().zip(progress) {
        let mut reference = Map::new();
        reference.insert("group".into(), json!(ancestor.target.group));
        reference.insert("kind".into(), json!(ancestor.target.kind));
        reference.insert("name".into(), json!(ancestor.target.name));
        if let Some(section) = &ancestor.target.section_name {
            reference.insert("sectionName".into(), json!(section));
        }
        let reference = Value::Object(reference);
        let observed = report
            .observed
            .iter()
            .filter(ours)
            .find(|value| value["ancestorRef"] == reference);
        let before = observed
            .and_then(|value| value["conditions"].as_array())
            .map(Vec::as_slice)
            .unwrap_or_default();
        wanted.push(json!({
            "ancestorRef": reference,
            "controllerName": names::POLICY_CONTROLLER,
            "conditions": conditions(ancestor, progress, report.meta.generation, before, now),
        }));
    }
    wanted
}

fn conditions(
    ancestor: &Ancestor,
    progress: &Progress,
    generation: i64,
    before: &[Value],
    now: &str,
) -> Vec<Value> {
    let mut conditions = Vec::new();
    let mut push = |kind: &str, (status, reason, message): (&str, &str, String)| {
        let former = before
            .iter()
            .find(|condition| condition["type"] == kind && condition["status"] == status);
        let since = former
            .and_then(|condition| condition["lastTransitionTime"].as_str())
            .unwrap_or(now);
        conditions.push(json!({
            "type": kind,
            "status": status,
            "reason": reason,
            "message": message,
            "observedGeneration": generation,
            "lastTransitionTime": since,
        }));
    };
    match &ancestor.verdict {
        Ok(()) => {
            push(
                "Accepted",
                ("True", "Accepted", "the policy holds for its target".into()),
            );
            push("Programmed", programmed(ancestor, progress));
        }
        Err(problem) => {
            push(
                "Accepted",
                ("False", problem.reason, problem.message.clone()),
            );
            push(
                "Programmed",
                ("False", problem.reason, "the policy is not accepted".into()),
            );
        }
    }
    if !ancestor.unsupported.is_empty() {
        let message = format!(
            "not supported yet and not enforced: {}",
            ancestor.unsupported.join(", ")
        );
        push("Supported", ("False", "UnsupportedFields", message));
    }
    conditions
}

/// Status, reason and message of the condition `Programmed` of an accepted policy.
fn programmed(ancestor: &Ancestor, progress: &Progress) -> (&'static str, &'static str, String) {
    let Progress {
        enforced,
        total,
        refused,
    } = progress;
    if let Some((replica, reason)) = refused.first() {
        let others = match refused.len() {
            1 => String::new(),
            count => format!(" (and {} more)", count - 1),
        };
        return (
            "False",
            "Refused",
            format!("{replica} keeps the last good configuration: {reason}{others}"),
        );
    }
    let at_edge = ancestor
        .affects
        .iter()
        .any(|key| key.kind == ResourceKind::EdgeHost);
    match (enforced, total) {
        (_, 0) if at_edge => (
            "False",
            "Pending",
            "no replica of the edge is connected".into(),
        ),
        (_, 0) => ("True", "Programmed", "no connected proxy needs it".into()),
        (enforced, total) if enforced == total => (
            "True",
            "Programmed",
            format!("enforced by {enforced} of {total} replicas"),
        ),
        (enforced, total) => (
            "False",
            "Pending",
            format!("enforced by {enforced} of {total} replicas"),
        ),
    }
}
