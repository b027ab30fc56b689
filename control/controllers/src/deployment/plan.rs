//! One step of a Deployment: which ReplicaSets to create, scale and delete now, and the status. Pure: each step is
//! planned from what is seen, and what it changes leads to the next step.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::revision::{
    DESIRED_REPLICAS, MAX_REPLICAS, TEMPLATE_HASH, age_order, annotations, newest_template, number,
    revision, template_hash,
};
use super::{rollout, scale, status};
use crate::objects::{Deployment, DeploymentStatus, Pod, ReplicaSet, condition};
use crate::ownership::controller_reference;

/// Kept old ReplicaSets where the Deployment does not say.
const HISTORY_LIMIT: i32 = 10;

/// What to do for a Deployment now.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) changes: Vec<Change>,
    pub(crate) status: DeploymentStatus,
    /// When the progress deadline passes.
    pub(crate) look_again: Option<Duration>,
}

/// One write.
#[derive(Debug)]
pub(crate) enum Change {
    /// The Deployment's revision annotation.
    SetRevision(i64),
    Create(NewReplicaSet),
    Update(Update),
    Delete {
        name: String,
        uid: String,
        resource_version: String,
    },
}

/// A ReplicaSet for the present template.
#[derive(Debug)]
pub(crate) struct NewReplicaSet {
    pub(crate) name: String,
    pub(crate) replicas: i32,
    pub(crate) spec: Value,
    labels: Value,
    annotations: BTreeMap<String, String>,
}

impl NewReplicaSet {
    pub(crate) fn metadata(&self, deployment: &Deployment) -> Value {
        json!({
            "name": self.name,
            "labels": self.labels,
            "annotations": self.annotations,
            "ownerReferences": [controller_reference(deployment)],
        })
    }
}

/// Changes of an existing ReplicaSet.
#[derive(Debug, Clone)]
pub(crate) struct Update {
    pub(crate) name: String,
    /// Makes the write fail when the ReplicaSet was scaled by someone else meanwhile.
    resource_version: Option<String>,
    pub(crate) replicas: Option<(i32, i32)>,
    pub(crate) min_ready_seconds: Option<i32>,
    pub(crate) annotations: BTreeMap<String, String>,
}

impl Update {
    fn new(replica_set: &ReplicaSet) -> Self {
        Self {
            name: replica_set.metadata.name.clone().unwrap_or_default(),
            resource_version: replica_set.metadata.resource_version.clone(),
            replicas: None,
            min_ready_seconds: None,
            annotations: BTreeMap::new(),
        }
    }

    /// Merge patch.
    pub(crate) fn patch(&self) -> Value {
        let mut patch = json!({"metadata": {"resourceVersion": self.resource_version}});
        if !self.annotations.is_empty() {
            patch["metadata"]["annotations"] = json!(self.annotations);
        }
        if let Some((_, replicas)) = self.replicas {
            patch["spec"]["replicas"] = json!(replicas);
        }
        if let Some(seconds) = self.min_ready_seconds {
            patch["spec"]["minReadySeconds"] = json!(seconds);
        }
        patch
    }

    /// What the Event says, if the number of replicas changes.
    pub(crate) fn scaled(&self) -> Option<String> {
        let (from, to) = self.replicas.filter(|(from, to)| from != to)?;
        let direction = if to > from { "up" } else { "down" };
        Some(format!(
            "Scaled {direction} replica set {} from {from} to {to}",
            self.name
        ))
    }
}

/// The Deployment's ReplicaSets, sorted by what they are to it.
#[derive(Debug)]
pub(crate) struct View<'a> {
    pub(crate) deployment: &'a Deployment,
    /// Of the present template.
    pub(crate) new: Option<&'a Arc<ReplicaSet>>,
    /// Of former templates, oldest first.
    pub(crate) old: Vec<&'a Arc<ReplicaSet>>,
    /// Pods above the wanted number that a rollout may have.
    pub(crate) surge: i32,
    /// Pods below the wanted number that a rollout may lack.
    pub(crate) unavailable: i32,
}

impl<'a> View<'a> {
    fn new(deployment: &'a Deployment, replica_sets: &'a [Arc<ReplicaSet>]) -> Self {
        let new = newest_template(deployment, replica_sets);
        let is_new = |rs: &Arc<ReplicaSet>| new.is_some_and(|new| Arc::ptr_eq(new, rs));
        let mut old: Vec<_> = replica_sets.iter().filter(|rs| !is_new(rs)).collect();
        old.sort_by_cached_key(|rs| age_order(&rs.metadata));
        let (surge, unavailable) = limits(deployment);
        Self {
            deployment,
            new,
            old,
            surge,
            unavailable,
        }
    }

    pub(crate) fn wanted(&self) -> i32 {
        self.deployment.spec.replicas
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &'a Arc<ReplicaSet>> + use<'a, '_> {
        self.old.iter().copied().chain(self.new)
    }

    /// Replicas that the ReplicaSets are told to have.
    pub(crate) fn told(&self) -> i32 {
        self.all().map(|rs| rs.spec.replicas).sum()
    }

    /// The update that scales a ReplicaSet, with the annotations that proportional scaling reads later; nothing if
    /// all is as it should be.
    pub(crate) fn scale(&self, replica_set: &ReplicaSet, replicas: i32) -> Option<Update> {
        let mut update = Update::new(replica_set);
        if replica_set.spec.replicas != replicas {
            update.replicas = Some((replica_set.spec.replicas, replicas));
        }
        let max = if self.wanted() > 0 {
            self.wanted() + self.surge
        } else {
            0
        };
        for (annotation, value) in [(DESIRED_REPLICAS, self.wanted()), (MAX_REPLICAS, max)] {
            if number(&replica_set.metadata, annotation) != Some(i64::from(value)) {
                update
                    .annotations
                    .insert(annotation.to_owned(), value.to_string());
            }
        }
        (update.replicas.is_some() || !update.annotations.is_empty()).then_some(update)
    }
}

/// Plans one step for `deployment`, which owns `replica_sets`, which own `pods`.
pub(crate) fn plan(
    deployment: &Deployment,
    replica_sets: &[Arc<ReplicaSet>],
    pods: &[Arc<Pod>],
    now: Timestamp,
) -> Plan {
    let view = View::new(deployment, replica_sets);
    let mut changes = Vec::new();
    if deployment.metadata.deletion_timestamp.is_none() {
        changes = step(&view, pods);
    }
    let created = changes.iter().find_map(|change| match change {
        Change::Create(new) => Some(new.name.as_str()),
        _ => None,
    });
    let (status, look_again) = status::status(&view, created, now);
    Plan {
        changes,
        status,
        look_again,
    }
}

fn step(view: &View<'_>, pods: &[Arc<Pod>]) -> Vec<Change> {
    let deployment = view.deployment;
    let mut changes = revise(view);
    // A changed number of replicas comes before a rollout moves on; a paused one does not move on at all.
    if deployment.spec.paused || is_scaling(view) {
        let updates = scale::scale(view);
        if deployment.spec.paused || !updates.is_empty() {
            merge_updates(&mut changes, updates);
            return changes;
        }
    }
    let updates = if deployment.spec.strategy.type_ == "Recreate" {
        rollout::recreate(view, pods)
    } else {
        rollout::rolling_update(view)
    };
    match updates {
        rollout::Step::Create(replicas) => {
            let new = new_replica_set(view, replicas);
            let number = new
                .annotations
                .get(super::revision::REVISION)
                .and_then(|n| n.parse().ok());
            changes.retain(|change| !matches!(change, Change::SetRevision(_)));
            changes.push(Change::Create(new));
            changes.extend(number.map(Change::SetRevision));
        }
        rollout::Step::Scale(updates) => merge_updates(&mut changes, updates),
        rollout::Step::Nothing => changes.extend(clean_up(view)),
    }
    changes
}

/// One ReplicaSet is written once.
fn merge_updates(changes: &mut Vec<Change>, updates: Vec<Update>) {
    for update in updates {
        let known = changes.iter_mut().find_map(|change| match change {
            Change::Update(known) if known.name == update.name => Some(known),
            _ => None,
        });
        match known {
            Some(known) => {
                known.replicas = update.replicas;
                known.annotations.extend(update.annotations);
            }
            None => changes.push(Change::Update(update)),
        }
    }
}

/// Whether an active ReplicaSet was scaled for another number of replicas than is wanted now.
fn is_scaling(view: &View<'_>) -> bool {
    view.all().filter(|rs| rs.spec.replicas > 0).any(|rs| {
        number(&rs.metadata, DESIRED_REPLICAS)
            .is_some_and(|desired| desired != i64::from(view.wanted()))
    })
}

/// Keeps the revision numbers, inherited annotations and minReadySeconds of the present template's ReplicaSet.
fn revise(view: &View<'_>) -> Vec<Change> {
    let Some(new) = view.new else {
        return Vec::new();
    };
    let highest_other = view
        .old
        .iter()
        .map(|rs| revision(&rs.metadata))
        .max()
        .unwrap_or(0);
    let mut update = Update::new(new);
    update.annotations = annotations(view.deployment, Some(new), highest_other);
    if new.spec.min_ready_seconds != view.deployment.spec.min_ready_seconds {
        update.min_ready_seconds = Some(view.deployment.spec.min_ready_seconds);
    }
    let number = revision(&new.metadata).max(highest_other + 1);
    let mut changes = Vec::new();
    if !update.annotations.is_empty() || update.min_ready_seconds.is_some() {
        changes.push(Change::Update(update));
    }
    if revision(&view.deployment.metadata) != number {
        changes.push(Change::SetRevision(number));
    }
    changes
}

fn new_replica_set(view: &View<'_>, replicas: i32) -> NewReplicaSet {
    let deployment = view.deployment;
    let hash = template_hash(&deployment.spec.template, deployment.status.collision_count);
    let mut template = deployment.spec.template.clone();
    template["metadata"]["labels"][TEMPLATE_HASH] = json!(hash);
    let mut selector = json!(deployment.spec.selector);
    selector["matchLabels"][TEMPLATE_HASH] = json!(hash);
    let highest = view
        .old
        .iter()
        .map(|rs| revision(&rs.metadata))
        .max()
        .unwrap_or(0);
    let mut annotations = annotations(deployment, None, highest);
    let max = if view.wanted() > 0 {
        view.wanted() + view.surge
    } else {
        0
    };
    annotations.insert(DESIRED_REPLICAS.to_owned(), view.wanted().to_string());
    annotations.insert(MAX_REPLICAS.to_owned(), max.to_string());
    NewReplicaSet {
        name: format!(
            "{}-{hash}",
            deployment.metadata.name.as_deref().unwrap_or_default()
        ),
        replicas,
        labels: template["metadata"]["labels"].clone(),
        spec: json!({
            "replicas": replicas,
            "minReadySeconds": deployment.spec.min_ready_seconds,
            "selector": selector,
            "template": template,
        }),
        annotations,
    }
}

/// Once a rollout is complete, the oldest unused ReplicaSets go.
fn clean_up(view: &View<'_>) -> Vec<Change> {
    if !status::is_complete(view) {
        return Vec::new();
    }
    let limit = view
        .deployment
        .spec
        .revision_history_limit
        .unwrap_or(HISTORY_LIMIT);
    let limit = usize::try_from(limit).unwrap_or(0);
    let mut unused: Vec<&&Arc<ReplicaSet>> = view
        .old
        .iter()
        .filter(|rs| {
            rs.spec.replicas == 0
                && rs.status.replicas == 0
                && rs.metadata.generation.unwrap_or(0) <= rs.status.observed_generation
                && rs.metadata.deletion_timestamp.is_none()
        })
        .collect();
    unused.sort_by_key(|rs| revision(&rs.metadata));
    let surplus = unused.len().saturating_sub(limit);
    let deletions = unused.into_iter().take(surplus).map(|rs| Change::Delete {
        name: rs.metadata.name.clone().unwrap_or_default(),
        uid: rs.metadata.uid.clone().unwrap_or_default(),
        resource_version: rs.metadata.resource_version.clone().unwrap_or_default(),
    });
    deletions.collect()
}

/// Surge and unavailability in pods: percentages of the wanted number, the surge rounded up, the other down; both
/// zero would never move, so that then one pod may be unavailable.
fn limits(deployment: &Deployment) -> (i32, i32) {
    if deployment.spec.strategy.type_ == "Recreate" {
        return (0, 0);
    }
    let wanted = deployment.spec.replicas;
    let rolling = deployment
        .spec
        .strategy
        .rolling_update
        .clone()
        .unwrap_or_default();
    let default = IntOrString::String("25%".to_owned());
    let surge = amount(rolling.max_surge.as_ref().unwrap_or(&default), wanted, true);
    let unavailable = amount(
        rolling.max_unavailable.as_ref().unwrap_or(&default),
        wanted,
        false,
    );
    match (surge, unavailable) {
        (0, 0) => (0, 1),
        (surge, unavailable) => (surge, unavailable.min(wanted)),
    }
}

fn amount(value: &IntOrString, of: i32, round_up: bool) -> i32 {
    match value {
        IntOrString::Int(pods) => (*pods).max(0),
        IntOrString::String(text) => {
            let percent: i64 = text
                .strip_suffix('%')
                .and_then(|number| number.parse().ok())
                .unwrap_or(0);
            let hundredths = percent.clamp(0, 1_000_000) * i64::from(of.max(0));
            let pods = if round_up {
                (hundredths + 99) / 100
            } else {
                hundredths / 100
            };
            i32::try_from(pods).unwrap_or(i32::MAX)
        }
    }
}

/// Whether the Deployment's last rollout succeeded or goes on, as its condition says.
pub(crate) fn progressing(deployment: &Deployment) -> Option<&crate::objects::Condition> {
    condition(&deployment.status.conditions, "Progressing")
}
