//! Deployment and ReplicaSet together against a pretended API server, with users who change their minds and pods that
//! come and go: whatever happens, a rollout never goes beyond its limits, and once everybody is quiet it completes.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::plan::{Change, plan};
use super::revision::{TEMPLATE_HASH, same_template};
use crate::objects::{Deployment, Pod, ReplicaSet};
use crate::ownership::controller_of;
use crate::pods::{is_active, is_ready};
use crate::replica_set::plan as replica_set;

const SEEDS: u64 = 6;
const STEPS: usize = 60;
/// Rounds that any rollout of a dozen pods completes in once nothing fails any more.
const ROUNDS_TO_SETTLE: usize = 100;

/// SplitMix64: small, and the same everywhere.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).expect("below a usize")
    }
}

/// What the API server would hold.
struct World {
    now: Timestamp,
    made: u64,
    deployment: Value,
    replica_sets: Vec<Value>,
    pods: Vec<Value>,
    told: String,
}

impl World {
    fn new(strategy: &Value, replicas: usize) -> Self {
        let deployment = json!({
            "metadata": {"name": "web", "namespace": "d", "uid": "web", "generation": 1, "annotations": {}},
            "spec": {
                "replicas": replicas, "strategy": strategy, "revisionHistoryLimit": 2,
                "selector": {"matchLabels": {"app": "web"}}, "template": template(1),
            },
            "status": {},
        });
        Self {
            now: "2026-01-01T00:00:00Z".parse().expect("a time"),
            made: 0,
            deployment,
            replica_sets: Vec::new(),
            pods: Vec::new(),
            told: String::new(),
        }
    }

    fn deployment(&self) -> Deployment {
        serde_json::from_value(self.deployment.clone()).expect("a Deployment")
    }

    fn replica_sets(&self) -> Vec<Arc<ReplicaSet>> {
        let read =
            |value: &Value| Arc::new(serde_json::from_value(value.clone()).expect("a ReplicaSet"));
        self.replica_sets.iter().map(read).collect()
    }

    fn pods(&self) -> Vec<Arc<Pod>> {
        self.pods
            .iter()
            .map(|value| Arc::new(serde_json::from_value(value.clone()).expect("a Pod")))
            .collect()
    }

    fn available(&self) -> usize {
        self.pods()
            .iter()
            .filter(|pod| is_active(pod) && is_ready(pod))
            .count()
    }

    fn active(&self) -> usize {
        self.pods().iter().filter(|pod| is_active(pod)).count()
    }

    fn wanted(&self) -> usize {
        usize::try_from(
            self.deployment["spec"]["replicas"]
                .as_u64()
                .expect("a number"),
        )
        .expect("small")
    }

    fn make(&mut self) -> u64 {
        self.made += 1;
        self.now += Duration::from_secs(1);
        self.made
    }

    fn timestamp(&self) -> Value {
        json!(self.now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
    }

    /// The Deployment controller, once. Returns whether it changed anything.
    fn reconcile_deployment(&mut self) -> bool {
        let deployment = self.deployment();
        let plan = plan(&deployment, &self.replica_sets(), &self.pods(), self.now);
        let changed = !plan.changes.is_empty();
        for change in plan.changes {
            self.apply(&deployment, change);
        }
        self.deployment["status"] = serde_json::to_value(&plan.status).expect("serialises");
        changed
    }

    fn apply(&mut self, deployment: &Deployment, change: Change) {
        writeln!(self.told, "  {change:?}").expect("a string");
        match change {
            Change::SetRevision(number) => {
                self.deployment["metadata"]["annotations"][super::revision::REVISION] =
                    json!(number.to_string());
            }
            Change::Create(new) => {
                assert!(
                    !self
                        .replica_sets
                        .iter()
                        .any(|rs| rs["metadata"]["name"] == new.name),
                    "made twice"
                );
                let mut metadata = new.metadata(deployment);
                let version = self.make();
                metadata["namespace"] = json!("d");
                metadata["uid"] = json!(new.name);
                metadata["generation"] = json!(1);
                metadata["resourceVersion"] = json!(version.to_string());
                metadata["creationTimestamp"] = self.timestamp();
                self.replica_sets
                    .push(json!({"metadata": metadata, "spec": new.spec, "status": {}}));
            }
            Change::Update(update) => {
                let version = self.make();
                let patch = update.patch();
                let known = self
                    .replica_sets
                    .iter_mut()
                    .find(|rs| rs["metadata"]["name"] == update.name);
                let replica_set = known.expect("only what exists is updated");
                let expected = &patch["metadata"]["resourceVersion"];
                assert_eq!(
                    *expected, replica_set["metadata"]["resourceVersion"],
                    "written once per plan"
                );
                json_patch_merge(replica_set, &patch);
                replica_set["metadata"]["resourceVersion"] = json!(version.to_string());
            }
            Change::Delete { name, .. } => {
                let known = self
                    .replica_sets
                    .iter()
                    .position(|rs| rs["metadata"]["name"] == name);
                let replica_set = self
                    .replica_sets
                    .remove(known.expect("only what exists is deleted"));
                assert_eq!(
                    replica_set["spec"]["replicas"], 0,
                    "only unused ReplicaSets go"
                );
            }
        }
    }

    /// All ReplicaSets' controllers, once.
    fn reconcile_replica_sets(&mut self) {
        for replica_set in self.replica_sets() {
            let pods = self.pods_of(&replica_set);
            let plan = replica_set::plan(&replica_set, &pods, &HashMap::new(), self.now);
            for _ in 0..plan.create {
                let number = self.make();
                let owner = json!({
                    "apiVersion": "apps/v1", "kind": "ReplicaSet", "controller": true,
                    "name": replica_set.metadata.name, "uid": replica_set.metadata.uid,
                });
                self.pods.push(json!({
                    "metadata": {
                        "name": format!("pod-{number}"), "creationTimestamp": self.timestamp(),
                        "labels": replica_set.spec.template["metadata"]["labels"], "ownerReferences": [owner],
                    },
                    "spec": {"nodeName": "n1"}, "status": {"phase": "Pending"},
                }));
            }
            for pod in &plan.delete {
                let name = pod.metadata.name.as_deref().expect("named");
                self.pods.retain(|known| known["metadata"]["name"] != name);
            }
        }
        self.report_replica_sets();
    }

    fn report_replica_sets(&mut self) {
        let statuses: Vec<Value> = self
            .replica_sets()
            .iter()
            .map(|rs| replica_set::status(rs, &self.pods_of(rs), None, self.now))
            .map(|status| serde_json::to_value(status).expect("serialises"))
            .collect();
        for (replica_set, status) in self.replica_sets.iter_mut().zip(statuses) {
            replica_set["status"] = status;
        }
    }

    fn pods_of(&self, replica_set: &ReplicaSet) -> Vec<Arc<Pod>> {
        let mut pods = self.pods();
        pods.retain(|pod| {
            controller_of(&pod.metadata).map(|owner| &owner.uid)
                == replica_set.metadata.uid.as_ref()
        });
        pods
    }

    fn set_ready(&mut self, pod: usize, ready: bool) {
        let since = self.timestamp();
        self.pods[pod]["status"] = json!({"phase": "Running", "conditions": [{
            "type": "Ready", "status": if ready { "True" } else { "False" }, "lastTransitionTime": since,
        }]});
    }
}

fn template(version: usize) -> Value {
    json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": format!("web:{version}")}]}})
}

/// RFC 7386, for objects.
fn json_patch_merge(target: &mut Value, patch: &Value) {
    match patch {
        Value::Object(fields) => {
            for (key, value) in fields {
                json_patch_merge(&mut target[key], value);
            }
        }
        scalar => *target = scalar.clone(),
    }
}

/// One step: somebody does something, then the controllers act.
fn step(world: &mut World, chance: &mut Chance) {
    match chance.below(10) {
        0 => {
            let version = 1 + chance.below(4);
            writeln!(world.told, "template {version}").expect("a string");
            world.deployment["spec"]["template"] = template(version);
        }
        1 => {
            let paused = chance.below(3) == 0;
            writeln!(world.told, "paused {paused}").expect("a string");
            world.deployment["spec"]["paused"] = json!(paused);
        }
        2 if !world.pods.is_empty() => {
            let pod = chance.below(world.pods.len());
            writeln!(world.told, "{} fails", world.pods[pod]["metadata"]["name"])
                .expect("a string");
            world.set_ready(pod, false);
        }
        _ if !world.pods.is_empty() => {
            let pod = chance.below(world.pods.len());
            world.set_ready(pod, true);
        }
        _ => {}
    }
    let generation = world.deployment["metadata"]["generation"]
        .as_i64()
        .expect("a number");
    world.deployment["metadata"]["generation"] = json!(generation + 1);
    world.report_replica_sets();
}

/// Runs seeds; `surge` and `unavailable` are the most pods above and below the wanted number.
fn check(strategy: &Value, replicas: usize, surge: usize, unavailable: usize) {
    for seed in 0..SEEDS {
        let mut world = World::new(strategy, replicas);
        let mut chance = Chance(seed);
        for _ in 0..STEPS {
            step(&mut world, &mut chance);
            let before = world.available();
            world.reconcile_deployment();
            world.reconcile_replica_sets();
            let (active, after) = (world.active(), world.available());
            let context = || format!("seed {seed}\n{}", world.told);
            assert!(
                active <= world.wanted() + surge,
                "{active} pods are too many; {}",
                context()
            );
            let least = world.wanted().saturating_sub(unavailable);
            assert!(
                after >= before.min(least),
                "{before} available became {after}; {}",
                context()
            );
        }
        settle(&mut world, seed);
    }
}

/// Nobody interferes any more, and every pod becomes ready.
fn settle(world: &mut World, seed: u64) {
    world.deployment["spec"]["paused"] = json!(false);
    for _ in 0..ROUNDS_TO_SETTLE {
        for pod in 0..world.pods.len() {
            world.set_ready(pod, true);
        }
        world.report_replica_sets();
        let before = (world.active(), world.available());
        let changed = world.reconcile_deployment();
        world.reconcile_replica_sets();
        if !changed && before == (world.active(), world.available()) {
            break;
        }
    }
    world.reconcile_deployment();
    let context = format!("seed {seed}\n{}", world.told);
    assert!(!world.reconcile_deployment(), "it never rests; {context}");
    let deployment = world.deployment();
    let active: Vec<Arc<ReplicaSet>> = world
        .replica_sets()
        .into_iter()
        .filter(|rs| rs.spec.replicas > 0)
        .collect();
    assert_eq!(active.len(), 1, "{context}");
    assert!(
        same_template(&active[0].spec.template, &deployment.spec.template),
        "{context}"
    );
    assert_eq!(world.active(), world.wanted(), "{context}");
    let hash = &active[0].metadata.labels.as_ref().expect("labels")[TEMPLATE_HASH];
    assert!(
        world
            .pods
            .iter()
            .all(|pod| pod["metadata"]["labels"][TEMPLATE_HASH] == **hash),
        "{context}"
    );
    assert!(
        world.replica_sets.len() <= 1 + 2,
        "the history is limited; {context}"
    );
    let progressing =
        crate::objects::condition(&deployment.status.conditions, "Progressing").expect("set");
    assert_eq!(progressing.reason, "NewReplicaSetAvailable", "{context}");
    assert_eq!(
        deployment.status.available_replicas, deployment.spec.replicas,
        "{context}"
    );
}

fn rolling(surge: &str, unavailable: &str) -> Value {
    json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}})
}

#[test]
fn rolling_updates_stay_within_their_limits() {
    check(&rolling("25%", "25%"), 8, 2, 2);
    check(&rolling("25%", "25%"), 3, 1, 0);
    check(&rolling("0%", "50%"), 4, 0, 2);
    check(&rolling("100%", "0%"), 5, 5, 0);
    check(&rolling("0%", "0%"), 1, 0, 1);
}

#[test]
fn recreation_never_mixes_templates() {
    for seed in 0..SEEDS {
        let mut world = World::new(&json!({"type": "Recreate"}), 4);
        let mut chance = Chance(seed);
        for _ in 0..STEPS {
            step(&mut world, &mut chance);
            world.reconcile_deployment();
            world.reconcile_replica_sets();
            let mut hashes: Vec<&Value> = world
                .pods
                .iter()
                .map(|pod| &pod["metadata"]["labels"][TEMPLATE_HASH])
                .collect();
            hashes.dedup();
            assert!(hashes.len() <= 1, "seed {seed}\n{}", world.told);
        }
        settle(&mut world, seed);
    }
}

/// Users who also scale: nothing is promised on the way but that it ends well.
#[test]
fn scaling_at_any_time_ends_well() {
    for seed in 0..SEEDS {
        let mut world = World::new(&rolling("25%", "25%"), 4);
        let mut chance = Chance(seed);
        for _ in 0..STEPS {
            if chance.below(6) == 0 {
                let replicas = chance.below(13);
                writeln!(world.told, "scale {replicas}").expect("a string");
                world.deployment["spec"]["replicas"] = json!(replicas);
            }
            step(&mut world, &mut chance);
            world.reconcile_deployment();
            world.reconcile_replica_sets();
        }
        world.deployment["spec"]["replicas"] = json!(5);
        settle(&mut world, seed);
    }
}
