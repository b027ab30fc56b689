//! Eviction: pods leave a node with NoExecute taints when their toleration ends.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Taint, Toleration};
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use meshgate_api::client::{
    Change, EventKind, Key, Next, Queue, Recorder, Reference, is_conflict, is_not_found,
};
use serde_json::json;

use crate::conditions::whole_seconds;
use crate::context::Context;
use crate::objects::Pod;
use crate::pods::is_active;

/// Evictions under way at once.
const WORKERS: usize = 8;

/// The controller that evicts pods.
pub(crate) struct Controller {
    context: Arc<Context>,
    queue: Queue<Key>,
    recorder: Recorder,
}

impl Controller {
    pub(crate) fn new(context: &Arc<Context>) -> Self {
        let queue = Queue::default();
        let keys = queue.clone();
        let pods = context.pods.clone();
        context.nodes.on_change(move |change| {
            let changed = match change {
                Change::Updated { before, after } => before.spec.taints != after.spec.taints,
                Change::Added(node) => !node.spec.taints.is_empty(),
                Change::Deleted(_) => false,
            };
            let name = change.object().metadata.name.as_deref();
            for pod in pods
                .list()
                .iter()
                .filter(|pod| changed && pod.spec.node_name.as_deref() == name)
            {
                keys.add(Key::of(&**pod));
            }
        });
        let keys = queue.clone();
        let nodes = context.nodes.clone();
        context.pods.on_change(move |change| {
            let pod = change.object();
            let node = pod
                .spec
                .node_name
                .as_deref()
                .and_then(|node| nodes.get(&Key::cluster(node)));
            if node.is_some_and(|node| !node.spec.taints.is_empty()) {
                keys.add(Key::of(&**pod));
            }
        });
        Self {
            recorder: context.recorder.named("taint-eviction-controller"),
            context: Arc::clone(context),
            queue,
        }
    }

    pub(crate) async fn run(&self) {
        tokio::join!(self.context.nodes.synced(), self.context.pods.synced());
        self.queue
            .work("eviction", WORKERS, async |key: &Key| {
                self.reconcile(key).await
            })
            .await;
    }

    async fn reconcile(&self, key: &Key) -> Result<Next, kube::Error> {
        let Some(pod) = self.context.pods.get(key).filter(|pod| is_active(pod)) else {
            return Ok(Next::Event);
        };
        let name = pod.spec.node_name.clone().unwrap_or_default();
        let Some(node) = self.context.nodes.get(&Key::cluster(name)) else {
            return Ok(Next::Event);
        };
        let longest = self.context.options.eviction_after_max;
        match verdict(
            &node.spec.taints,
            &pod.spec.tolerations,
            longest,
            Timestamp::now(),
        ) {
            Verdict::Stays => Ok(Next::Event),
            Verdict::LeavesIn(left) => Ok(Next::After(left)),
            Verdict::Leaves => self.evict(key, &pod).await.map(|()| Next::Event),
        }
    }

    async fn evict(&self, key: &Key, pod: &Pod) -> Result<(), kube::Error> {
        let api = Api::<Pod>::namespaced(self.context.client.clone(), &key.namespace);
        let patch = json!({"metadata": {"uid": pod.metadata.uid}, "status": {"conditions": [{
            "type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager",
            "message": "Taint manager: deleting due to NoExecute taint",
            "lastTransitionTime": whole_seconds(Timestamp::now()),
        }]}});
        let gone = |error: &kube::Error| is_not_found(error) || is_conflict(error);
        match api
            .patch_status(
                &key.name,
                &PatchParams::default(),
                &Patch::Strategic(&patch),
            )
            .await
        {
            Err(error) if gone(&error) => return Ok(()),
            written => written?,
        };
        let text = format!("Marking for deletion Pod {key}");
        self.recorder.record(
            Reference::of(pod),
            EventKind::Normal,
            "TaintManagerEviction",
            text,
        );
        let preconditions = Preconditions {
            uid: pod.metadata.uid.clone(),
            resource_version: None,
        };
        let params = DeleteParams {
            preconditions: Some(preconditions),
            ..DeleteParams::default()
        };
        match api.delete(&key.name, &params).await {
            Err(error) if !gone(&error) => Err(error),
            _ => Ok(()),
        }
    }
}

/// Whether a pod may stay on its node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Stays,
    LeavesIn(Duration),
    Leaves,
}

/// Each NoExecute taint gives a pod as long as it tolerates it, counted from when the taint was added, and at most
/// `longest`; one that tolerates a taint forever is not concerned by it.
fn verdict(
    taints: &[Taint],
    tolerations: &[Toleration],
    longest: Option<Duration>,
    now: Timestamp,
) -> Verdict {
    let mut verdict = Verdict::Stays;
    for taint in taints.iter().filter(|taint| taint.effect == "NoExecute") {
        let tolerated: Vec<&Toleration> =
            tolerations.iter().filter(|t| tolerates(t, taint)).collect();
        if tolerated.is_empty() {
            return Verdict::Leaves;
        }
        let seconds = tolerated
            .iter()
            .filter_map(|toleration| toleration.toleration_seconds)
            .min();
        let Some(seconds) = seconds else { continue };
        let time = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        let time = longest.map_or(time, |longest| time.min(longest));
        let since = taint.time_added.as_ref().map_or(now, |time| time.0);
        let passed = Duration::try_from(now.duration_since(since)).unwrap_or_default();
        match time.checked_sub(passed).filter(|left| !left.is_zero()) {
            None => return Verdict::Leaves,
            Some(left) => {
                verdict = match verdict {
                    Verdict::LeavesIn(sooner) => Verdict::LeavesIn(sooner.min(left)),
                    _ => Verdict::LeavesIn(left),
                };
            }
        }
    }
    verdict
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let word = |field: &Option<String>| field.as_deref().unwrap_or_default().to_owned();
    let (effect, key) = (word(&toleration.effect), word(&toleration.key));
    (effect.is_empty() || effect == taint.effect)
        && (key.is_empty() || key == taint.key)
        && match word(&toleration.operator).as_str() {
            "Exists" => true,
            "" | "Equal" => !key.is_empty() && word(&toleration.value) == word(&taint.value),
            _ => false,
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Taints as `key@age`, tolerations as `key` or `key=seconds` (`*` is every key).
    fn check(taints: &str, tolerations: &str, longest: Option<u64>, expected: Verdict) {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().expect("a time");
        let taints: Vec<Taint> = taints
            .split_whitespace()
            .map(|text| {
                let (key, age) = text.split_once('@').expect("key@age");
                let added = now - Duration::from_secs(age.parse().expect("seconds"));
                Taint {
                    key: key.into(),
                    effect: "NoExecute".into(),
                    time_added: Some(whole_seconds(added)),
                    value: None,
                }
            })
            .collect();
        let tolerations: Vec<Toleration> = tolerations
            .split_whitespace()
            .map(|text| {
                let (key, seconds) = text.split_once('=').unwrap_or((text, ""));
                Toleration {
                    key: (key != "*").then(|| key.to_owned()),
                    operator: Some("Exists".into()),
                    toleration_seconds: seconds.parse().ok(),
                    ..Toleration::default()
                }
            })
            .collect();
        let longest = longest.map(Duration::from_secs);
        assert_eq!(
            verdict(&taints, &tolerations, longest, now),
            expected,
            "{taints:?} {tolerations:?}"
        );
    }

    #[test]
    fn tolerations_end() {
        let left = |seconds| Verdict::LeavesIn(Duration::from_secs(seconds));
        check("", "", None, Verdict::Stays);
        check("a@0", "", None, Verdict::Leaves);
        check("a@0", "b=300", None, Verdict::Leaves);
        check("a@0", "a", None, Verdict::Stays);
        check("a@0", "*", Some(5), Verdict::Stays);
        check("a@20", "a=300", None, left(280));
        check("a@20", "a=300", Some(30), left(10));
        check("a@300", "a=300", None, Verdict::Leaves);
        check("a@20 b@10", "a=300 b=30", None, left(20));
        check("a@20 b@10", "a=300", None, Verdict::Leaves);
        check("a@0", "a=0", None, Verdict::Leaves);
    }
}
