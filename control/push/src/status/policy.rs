//! Policies: conditions for each target, as in Gateway API's policy attachment (GEP-713).

use jiff::Timestamp;
use meshgate_api::names;
use serde_json::{Map, Value, json};

use super::{RETURN, Shared, Tracked, Written};
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
        let returning = RETURN.saturating_sub(self.started.elapsed());
        if !returning.is_zero()
            && is_programmed(report)
            && progress.iter().any(|progress| progress.total == 0)
        {
            self.queue.add_after(subject.clone(), returning);
            return Ok(Written::default());
        }
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

/// Whether the status says, for this version of the policy, that all enforce it.
fn is_programmed(report: &PolicyReport) -> bool {
    let ours = report
        .observed
        .iter()
        .filter(|value| value["controllerName"] == names::POLICY_CONTROLLER);
    let conditions: Vec<&Value> = ours
        .filter_map(|value| value["conditions"].as_array())
        .flatten()
        .collect();
    let current = conditions
        .iter()
        .all(|condition| condition["observedGeneration"] == report.meta.generation);
    let programmed =
        |condition: &&Value| condition["type"] == "Programmed" && condition["status"] == "True";
    current && conditions.iter().any(programmed)
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
    if let Some(problem) = ancestor.unsupported_problem() {
        push("Supported", ("False", problem.reason, problem.message));
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
    // Until then, what was enforced before still is.
    if let Some(awaited) = &ancestor.awaited {
        return ("False", "Pending", awaited.clone());
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use meshgate_api::policies::TargetRef;

    use super::*;
    use crate::{
        compile::{Effect, Key, Problem, Unsupported},
        objects::Meta,
    };

    fn ancestor(kind: ResourceKind) -> Ancestor {
        Ancestor {
            target: TargetRef {
                group: String::new(),
                kind: "Service".into(),
                name: "web".into(),
                section_name: None,
            },
            verdict: Ok(()),
            unsupported: Vec::new(),
            affects: BTreeSet::from([Key::new(kind, "shop/web:80")]),
            authorities: Vec::new(),
            awaited: None,
        }
    }

    fn progress(enforced: usize, total: usize) -> Progress {
        Progress {
            enforced,
            total,
            refused: Vec::new(),
        }
    }

    fn report(ancestor: Ancestor, observed: Vec<Value>) -> PolicyReport {
        PolicyReport {
            meta: Meta {
                generation: 3,
                ..Meta::default()
            },
            ancestors: vec![ancestor],
            observed,
        }
    }

    #[track_caller]
    fn check(ancestor: Ancestor, progress: Progress, expected: &[&str]) {
        let written = ancestors(&report(ancestor, Vec::new()), &[progress], "now");
        let conditions = written[0]["conditions"].as_array().expect("a list");
        let shown: Vec<String> = conditions
            .iter()
            .map(|condition| {
                let text = |field: &str| condition[field].as_str().expect("text").to_owned();
                assert_eq!(condition["observedGeneration"], 3);
                format!(
                    "{}={} {}: {}",
                    text("type"),
                    text("status"),
                    text("reason"),
                    text("message")
                )
            })
            .collect();
        assert_eq!(shown, expected);
    }

    const ACCEPTED: &str = "Accepted=True Accepted: the policy holds for its target";

    #[test]
    fn conditions_say_who_enforces_it() {
        let edge = || ancestor(ResourceKind::EdgeHost);
        let service = || ancestor(ResourceKind::Service);
        check(
            edge(),
            progress(2, 2),
            &[
                ACCEPTED,
                "Programmed=True Programmed: enforced by 2 of 2 replicas",
            ],
        );
        check(
            edge(),
            progress(1, 2),
            &[
                ACCEPTED,
                "Programmed=False Pending: enforced by 1 of 2 replicas",
            ],
        );
        check(
            edge(),
            progress(0, 0),
            &[
                ACCEPTED,
                "Programmed=False Pending: no replica of the edge is connected",
            ],
        );
        check(
            service(),
            progress(0, 0),
            &[
                ACCEPTED,
                "Programmed=True Programmed: no connected proxy needs it",
            ],
        );
        let refused = Progress {
            refused: vec![
                ("shop/a".into(), "bad".into()),
                ("shop/b".into(), "bad".into()),
            ],
            ..progress(1, 3)
        };
        let message =
            "Programmed=False Refused: shop/a keeps the last good configuration: bad (and 1 more)";
        check(service(), refused, &[ACCEPTED, message]);
        let awaiting = Ancestor {
            awaited: Some("ConfigMap shop/ca has not been read yet".into()),
            ..service()
        };
        check(
            awaiting,
            progress(2, 2),
            &[
                ACCEPTED,
                "Programmed=False Pending: ConfigMap shop/ca has not been read yet",
            ],
        );
        let conflicted = Ancestor {
            verdict: Err(Problem::new(
                "Conflicted",
                "the older policy shop/x has the same target".into(),
            )),
            unsupported: vec![Unsupported::new(
                "spec.tls.mode Mutual",
                Effect::NothingSent,
            )],
            ..service()
        };
        let expected = [
            "Accepted=False Conflicted: the older policy shop/x has the same target",
            "Programmed=False Conflicted: the policy is not accepted",
            "Supported=False UnsupportedFields: not supported yet: spec.tls.mode Mutual (nothing is sent to endpoints outside the mesh)",
        ];
        check(conflicted, progress(0, 0), &expected);
    }

    #[test]
    fn times_change_with_the_status_alone_and_others_entries_stay() {
        let theirs = json!({ "controllerName": "other.test/x", "ancestorRef": { "name": "web" } });
        let before = ancestors(
            &report(ancestor(ResourceKind::Service), vec![theirs.clone()]),
            &[progress(1, 2)],
            "then",
        );
        assert_eq!(before[0], theirs);
        let after = ancestors(
            &report(ancestor(ResourceKind::Service), before),
            &[progress(2, 2)],
            "now",
        );
        assert_eq!(after[0], theirs);
        let times: Vec<_> = after[1]["conditions"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|c| &c["lastTransitionTime"])
            .collect();
        assert_eq!(times, ["then", "now"]);
        let again = ancestors(
            &report(ancestor(ResourceKind::Service), after.clone()),
            &[progress(2, 2)],
            "later",
        );
        assert_eq!(again, after, "nothing to write");
        assert!(is_programmed(&report(
            ancestor(ResourceKind::Service),
            after
        )));
    }
}
