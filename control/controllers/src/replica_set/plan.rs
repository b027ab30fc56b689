//! What a ReplicaSet needs: pods created, pods deleted (the least valuable first), status.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

use crate::conditions::whole_seconds;
use crate::objects::{Condition, Pod, ReplicaSet, ReplicaSetStatus, condition};
use crate::pods::{Availability, availability, is_active, is_ready, ready_since};

/// Most pods created or deleted by one plan; the next follows when these are seen.
const BURST_MAX: usize = 500;
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// What to do for a ReplicaSet.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Pods to create.
    pub(crate) create: usize,
    /// Pods to delete.
    pub(crate) delete: Vec<Arc<Pod>>,
    /// When a pod becomes available by the mere passing of time.
    pub(crate) look_again: Option<Duration>,
}

/// Plans for `replica_set`, which owns `pods`. `crowd` counts the active pods of the same application by node: of two
/// pods alike, the one on the more crowded node goes first.
pub(crate) fn plan(
    replica_set: &ReplicaSet,
    pods: &[Arc<Pod>],
    crowd: &HashMap<String, usize>,
    now: Timestamp,
) -> Plan {
    let active: Vec<Arc<Pod>> = pods.iter().filter(|pod| is_active(pod)).cloned().collect();
    let wanted = usize::try_from(replica_set.spec.replicas).unwrap_or(0);
    let min_ready = replica_set.spec.min_ready_seconds;
    let look_again = active
        .iter()
        .filter_map(|pod| match availability(pod, min_ready, now) {
            Availability::In(left) => Some(left),
            Availability::NotReady | Availability::Available => None,
        })
        .min();
    let mut plan = Plan {
        create: 0,
        delete: Vec::new(),
        look_again,
    };
    if replica_set.metadata.deletion_timestamp.is_some() {
        return plan;
    }
    if active.len() < wanted {
        plan.create = (wanted - active.len()).min(BURST_MAX);
    } else {
        let surplus = (active.len() - wanted).min(BURST_MAX);
        plan.delete = least_valuable(active, crowd, surplus);
    }
    plan
}

/// The `count` pods that are missed least.
fn least_valuable(
    mut pods: Vec<Arc<Pod>>,
    crowd: &HashMap<String, usize>,
    count: usize,
) -> Vec<Arc<Pod>> {
    pods.sort_by_cached_key(|pod| value(pod, crowd));
    pods.truncate(count);
    pods
}

/// Orders pods by what their loss costs, cheapest first: not placed, not started, not ready, declared cheap, on a
/// crowded node, ready for a shorter time, restarted more often, younger.
fn value(pod: &Pod, crowd: &HashMap<String, usize>) -> impl Ord + use<> {
    let node = pod.spec.node_name.as_deref().unwrap_or_default();
    let phase = match pod.status.phase.as_str() {
        "Running" => 2,
        "Unknown" => 1,
        _ => 0,
    };
    let annotations = pod.metadata.annotations.as_ref();
    let cost: i32 = annotations
        .and_then(|all| all.get(DELETION_COST))
        .and_then(|cost| cost.parse().ok())
        .unwrap_or(0);
    let restarts = pod
        .status
        .container_statuses
        .iter()
        .map(|status| status.restart_count)
        .max()
        .unwrap_or(0);
    let created = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
    (
        (!node.is_empty(), phase, is_ready(pod), cost),
        Reverse(crowd.get(node).copied().unwrap_or(0)),
        Reverse(ready_since(pod)),
        Reverse(restarts),
        Reverse(created),
        pod.metadata.name.clone(),
    )
}

/// The status that `pods` amount to.
pub(crate) fn status(
    replica_set: &ReplicaSet,
    pods: &[Arc<Pod>],
    failure: Option<&Failure>,
    now: Timestamp,
) -> ReplicaSetStatus {
    let empty = BTreeMap::new();
    let template_labels = replica_set.spec.template["metadata"]["labels"].as_object();
    let active: Vec<&Arc<Pod>> = pods.iter().filter(|pod| is_active(pod)).collect();
    let count = |test: &dyn Fn(&Pod) -> bool| -> i32 {
        i32::try_from(active.iter().filter(|pod| test(pod)).count()).unwrap_or(i32::MAX)
    };
    let min_ready = replica_set.spec.min_ready_seconds;
    ReplicaSetStatus {
        replicas: count(&|_| true),
        fully_labeled_replicas: count(&|pod| {
            let labels = pod.metadata.labels.as_ref().unwrap_or(&empty);
            let mut wanted = template_labels.into_iter().flatten();
            wanted.all(|(key, value)| labels.get(key).map(String::as_str) == value.as_str())
        }),
        ready_replicas: count(&is_ready),
        available_replicas: count(&|pod| {
            availability(pod, min_ready, now) == Availability::Available
        }),
        observed_generation: replica_set.metadata.generation.unwrap_or(0),
        conditions: conditions(replica_set, failure, now),
    }
}

/// Pods could not be created or deleted.
#[derive(Debug)]
pub(crate) struct Failure {
    /// `FailedCreate` or `FailedDelete`.
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

fn conditions(
    replica_set: &ReplicaSet,
    failure: Option<&Failure>,
    now: Timestamp,
) -> Vec<Condition> {
    let known = &replica_set.status.conditions;
    let mut conditions: Vec<Condition> = known
        .iter()
        .filter(|c| c.type_ != "ReplicaFailure")
        .cloned()
        .collect();
    if let Some(failure) = failure {
        let known = condition(known, "ReplicaFailure");
        conditions.push(Condition {
            type_: "ReplicaFailure".to_owned(),
            status: "True".to_owned(),
            last_transition_time: known
                .and_then(|known| known.last_transition_time.clone())
                .or_else(|| Some(whole_seconds(now))),
            reason: failure.reason.to_owned(),
            message: failure.message.clone(),
            ..Condition::default()
        });
    }
    conditions
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn now() -> Timestamp {
        "2026-01-01T01:00:00Z".parse().expect("a time")
    }

    /// `name node=n1 Running ready=10 cost=5 restarts=2 age=60`; ready and age in seconds, `deleting`.
    fn pod(text: &str) -> Arc<Pod> {
        let mut words = text.split_whitespace();
        let ago = |seconds: &str| {
            let time = now() - Duration::from_secs(seconds.parse().expect("seconds"));
            json!(time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
        };
        let mut pod = json!({
            "metadata": {"name": words.next(), "annotations": {}, "creationTimestamp": ago("100")},
            "spec": {}, "status": {"phase": "Pending"},
        });
        for word in words {
            match word.split_once('=') {
                Some(("node", node)) => pod["spec"]["nodeName"] = json!(node),
                Some(("ready", seconds)) => {
                    let ready = json!({"type": "Ready", "status": "True", "lastTransitionTime": ago(seconds)});
                    pod["status"]["conditions"] = json!([ready]);
                }
                Some(("cost", cost)) => pod["metadata"]["annotations"][DELETION_COST] = json!(cost),
                Some(("restarts", n)) => {
                    let count: i32 = n.parse().expect("a number");
                    pod["status"]["containerStatuses"] = json!([{"restartCount": count}]);
                }
                Some(("age", seconds)) => pod["metadata"]["creationTimestamp"] = ago(seconds),
                Some(_) => panic!("{word}?"),
                None if word == "deleting" => pod["metadata"]["deletionTimestamp"] = ago("1"),
                None => pod["status"]["phase"] = json!(word),
            }
        }
        Arc::new(serde_json::from_value(pod).expect("a pod"))
    }

    fn replica_set(replicas: i32, min_ready_seconds: i32) -> ReplicaSet {
        let spec = json!({"replicas": replicas, "minReadySeconds": min_ready_seconds, "selector": {}, "template": {}});
        serde_json::from_value(json!({"metadata": {"name": "web", "generation": 3}, "spec": spec}))
            .expect("valid")
    }

    /// The outcome reads `+created` or `-deleted,pods`.
    fn check(replicas: i32, pods: &[&str], expected: &str) {
        let pods: Vec<Arc<Pod>> = pods.iter().map(|text| pod(text)).collect();
        let mut crowd = HashMap::new();
        for pod in &pods {
            *crowd
                .entry(pod.spec.node_name.clone().unwrap_or_default())
                .or_default() += 1;
        }
        let plan = plan(&replica_set(replicas, 0), &pods, &crowd, now());
        let deleted: Vec<&str> = plan
            .delete
            .iter()
            .filter_map(|pod| pod.metadata.name.as_deref())
            .collect();
        let outcome = match plan.create {
            0 => format!("-{}", deleted.join(",")),
            created => format!("+{created}"),
        };
        assert_eq!(outcome, expected, "{replicas} of {pods:?}");
    }

    #[test]
    fn creates_what_is_missing() {
        check(3, &[], "+3");
        check(3, &["a Running"], "+2");
        check(1, &["a Failed", "b Succeeded", "c Running deleting"], "+1");
        check(2, &["a", "b"], "-");
        check(1000, &[], "+500");
    }

    #[test]
    fn deletes_the_least_valuable() {
        check(0, &["a", "b node=n1"], "-a,b");
        check(1, &["a node=n1 Running ready=9", "b node=n1 Running"], "-b");
        check(1, &["a node=n1", "b"], "-b");
        check(
            1,
            &[
                "a node=n1 Running ready=9 cost=1",
                "b node=n2 Running ready=99",
            ],
            "-b",
        );
        check(
            1,
            &["a node=n1 Running cost=-1 ready=9", "b node=n1 Running"],
            "-b",
        );
        check(
            2,
            &[
                "a node=n1 Running ready=9",
                "b node=n2 Running ready=8",
                "c node=n2 Running ready=99",
            ],
            "-b",
        );
        check(
            1,
            &["a node=n1 Running ready=9", "b node=n1 Running ready=8"],
            "-b",
        );
        check(
            1,
            &[
                "a node=n1 Running ready=9 restarts=3",
                "b node=n1 Running ready=9",
            ],
            "-a",
        );
        check(
            1,
            &["a node=n1 Running age=5", "b node=n1 Running age=50"],
            "-a",
        );
    }

    #[test]
    fn availability_takes_time() {
        let pods = [
            pod("a node=n Running ready=4"),
            pod("b node=n Running ready=20"),
            pod("c Running"),
        ];
        let replica_set = replica_set(3, 10);
        let plan = plan(&replica_set, &pods, &HashMap::new(), now());
        assert_eq!(plan.look_again, Some(Duration::from_secs(6)));
        let status = status(&replica_set, &pods, None, now());
        assert_eq!(
            (
                status.replicas,
                status.ready_replicas,
                status.available_replicas
            ),
            (3, 2, 1)
        );
        assert_eq!(status.observed_generation, 3);
    }
}
