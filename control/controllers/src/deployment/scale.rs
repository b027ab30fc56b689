//! A changed number of replicas, without moving on with a rollout: a paused or half-done one grows and shrinks in
//! proportion.

use std::cmp::Reverse;
use std::sync::Arc;

use super::plan::{Update, View};
use super::revision::{DESIRED_REPLICAS, MAX_REPLICAS, age_order, number, youth_order};
use crate::objects::ReplicaSet;

/// The updates that bring the ReplicaSets to the wanted number.
pub(crate) fn scale(view: &View<'_>) -> Vec<Update> {
    let active: Vec<&Arc<ReplicaSet>> = view.all().filter(|rs| rs.spec.replicas > 0).collect();
    if active.len() <= 1 {
        let latest = || view.all().min_by_key(|rs| youth_order(&rs.metadata));
        let only = active.first().copied().or(view.new).or_else(latest);
        return only
            .and_then(|rs| view.scale(rs, view.wanted()))
            .into_iter()
            .collect();
    }
    if view.new.is_some_and(|new| is_saturated(view, new)) {
        return view
            .old
            .iter()
            .filter(|rs| rs.spec.replicas > 0)
            .filter_map(|rs| view.scale(rs, 0))
            .collect();
    }
    if view.deployment.spec.strategy.type_ == "Recreate" {
        return Vec::new();
    }
    in_proportion(view, active)
}

fn is_saturated(view: &View<'_>, rs: &ReplicaSet) -> bool {
    rs.spec.replicas == view.wanted()
        && number(&rs.metadata, DESIRED_REPLICAS) == Some(i64::from(view.wanted()))
        && rs.status.available_replicas == view.wanted()
}

/// Each ReplicaSet gets its share of what is added or removed; what rounding leaves over goes to the largest.
fn in_proportion(view: &View<'_>, mut active: Vec<&Arc<ReplicaSet>>) -> Vec<Update> {
    let told: i32 = view.told();
    let allowed = if view.wanted() > 0 {
        view.wanted() + view.surge
    } else {
        0
    };
    let to_add = allowed - told;
    // Growing favours the younger of two equals, shrinking takes from the older.
    if to_add >= 0 {
        active.sort_by_cached_key(|rs| (Reverse(rs.spec.replicas), youth_order(&rs.metadata)));
    } else {
        active.sort_by_cached_key(|rs| (Reverse(rs.spec.replicas), age_order(&rs.metadata)));
    }
    let mut added = 0;
    let mut sizes: Vec<i32> = Vec::with_capacity(active.len());
    for rs in &active {
        let share = share(view, rs);
        let left = to_add - added;
        let part = if to_add >= 0 {
            share.clamp(0, left.max(0))
        } else {
            share.clamp(left.min(0), 0)
        };
        added += part;
        sizes.push(rs.spec.replicas + part);
    }
    if let Some(largest) = sizes.first_mut() {
        *largest = (*largest + to_add - added).max(0);
    }
    active
        .iter()
        .zip(sizes)
        .filter_map(|(rs, size)| view.scale(rs, size))
        .collect()
}

/// What the ReplicaSet would gain or lose if it kept its part of the whole.
fn share(view: &View<'_>, rs: &ReplicaSet) -> i32 {
    if view.wanted() == 0 {
        return -rs.spec.replicas;
    }
    let before = number(&rs.metadata, MAX_REPLICAS).filter(|max| *max > 0);
    let before = before.unwrap_or_else(|| i64::from(view.deployment.status.replicas));
    if before <= 0 {
        return 0;
    }
    let after = i64::from(view.wanted() + view.surge) * i64::from(rs.spec.replicas);
    // Rounded to the nearest.
    let size = (2 * after + before) / (2 * before);
    i32::try_from(size).unwrap_or(i32::MAX) - rs.spec.replicas
}
