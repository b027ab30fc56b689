//! Moving pods from old templates to the present one.

use std::sync::Arc;

use super::plan::{Update, View};
use crate::objects::{Pod, ReplicaSet};
use crate::ownership::controller_of;
use crate::pods::is_finished;

/// The next step of a rollout.
#[derive(Debug)]
pub(crate) enum Step {
    /// The present template needs a ReplicaSet, with so many replicas.
    Create(i32),
    Scale(Vec<Update>),
    Nothing,
}

impl Step {
    fn scale(updates: Vec<Update>) -> Self {
        if updates.is_empty() {
            Self::Nothing
        } else {
            Self::Scale(updates)
        }
    }
}

/// Old pods go as new ones become available: never more than wanted plus surge, never fewer available than wanted
/// minus unavailable.
pub(crate) fn rolling_update(view: &View<'_>) -> Step {
    let Some(new) = view.new else {
        return Step::Create(room_for_new(view, 0));
    };
    if let Some(update) = view.scale(new, new_size(view, new)) {
        return Step::Scale(vec![update]);
    }
    let sizes = old_sizes(view, new);
    Step::scale(
        view.old
            .iter()
            .zip(sizes)
            .filter(|(rs, size)| rs.spec.replicas != *size)
            .filter_map(|(rs, size)| view.scale(rs, size))
            .collect(),
    )
}

fn new_size(view: &View<'_>, new: &ReplicaSet) -> i32 {
    let has = new.spec.replicas;
    if has > view.wanted() {
        view.wanted()
    } else {
        has + room_for_new(view, has)
    }
}

/// How many replicas the new ReplicaSet, which has `has`, may get on top.
fn room_for_new(view: &View<'_>, has: i32) -> i32 {
    let room = view.wanted() + view.surge - view.told();
    room.min(view.wanted() - has).max(0)
}

/// New sizes of the old ReplicaSets, in their order. First the pods go that are not available anyway, then available
/// ones as far as enough others are.
fn old_sizes(view: &View<'_>, new: &ReplicaSet) -> Vec<i32> {
    let mut sizes: Vec<i32> = view.old.iter().map(|rs| rs.spec.replicas).collect();
    let min_available = view.wanted() - view.unavailable;
    let new_unavailable = (new.spec.replicas - new.status.available_replicas).max(0);
    let mut removable = view.told() - min_available - new_unavailable;
    for (rs, size) in view.old.iter().zip(&mut sizes) {
        let unhealthy = (*size - rs.status.available_replicas).max(0);
        let removed = unhealthy.min(removable).max(0);
        *size -= removed;
        removable -= removed;
    }
    let available: i32 = view.all().map(|rs| rs.status.available_replicas).sum();
    let mut removable = removable.min(available - min_available);
    for size in &mut sizes {
        let removed = (*size).min(removable).max(0);
        *size -= removed;
        removable -= removed;
    }
    sizes
}

/// All old pods end before the first new one starts.
pub(crate) fn recreate(view: &View<'_>, pods: &[Arc<Pod>]) -> Step {
    let down: Vec<Update> = view
        .old
        .iter()
        .filter(|rs| rs.spec.replicas > 0)
        .filter_map(|rs| view.scale(rs, 0))
        .collect();
    if !down.is_empty() {
        return Step::Scale(down);
    }
    let is_old = |uid: &str| {
        view.old
            .iter()
            .any(|rs| rs.metadata.uid.as_deref() == Some(uid))
    };
    let old_runs = pods.iter().any(|pod| {
        !is_finished(pod) && controller_of(&pod.metadata).is_some_and(|owner| is_old(&owner.uid))
    });
    if old_runs {
        return Step::Nothing;
    }
    match view.new {
        None => Step::Create(view.wanted()),
        Some(new) => Step::scale(view.scale(new, view.wanted()).into_iter().collect()),
    }
}
