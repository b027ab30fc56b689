//! Which of the nodes that can take a pod is the best: weighted points from 0 to 100 per aspect, as kube-scheduler
//! gives them.

use crate::cluster::Node;
use crate::filter::is_put_off;
use crate::neighbours::Neighbourhood;
use crate::place::Strategy;
use crate::pod::Pod;
use crate::spread::Spread;

const POINTS_MAX: i64 = 100;

const WEIGHT_TAINTS: i64 = 3;
const WEIGHT_NODE_AFFINITY: i64 = 2;
const WEIGHT_SPREAD: i64 = 2;
const WEIGHT_NEIGHBOURS: i64 = 2;
const WEIGHT_FIT: i64 = 1;
const WEIGHT_BALANCE: i64 = 1;

/// Points of each of the `feasible` nodes, in their order.
pub(crate) fn score(
    pod: &Pod,
    feasible: &[&Node],
    strategy: Strategy,
    spread: &Spread<'_>,
    around: &Neighbourhood<'_>,
) -> Vec<i64> {
    let aspect = |points: &dyn Fn(&Node) -> i64| -> Vec<i64> {
        feasible.iter().map(|node| points(node)).collect()
    };
    let put_off = |node: &Node| {
        node.facts
            .taints
            .iter()
            .filter(|taint| is_put_off(pod, taint))
            .count()
    };
    let taints = less_is_better(aspect(&|node| {
        i64::try_from(put_off(node)).unwrap_or(i64::MAX)
    }));
    let affinity = more_is_better(aspect(&|node| {
        pod.nodes.preference(&node.facts.name, &node.facts.labels)
    }));
    let crowding = aspect(&|node| spread.crowding(node).unwrap_or_else(|| siblings(pod, node)));
    let crowding = match strategy {
        // Packing pods and spreading siblings pull against each other: only the pod's own constraints spread then.
        Strategy::BinPack if pod.spread.is_empty() => vec![0; feasible.len()],
        Strategy::BinPack | Strategy::Spread => less_is_better(crowding),
    };
    let welcome = between_extremes(aspect(&|node| around.welcome(node).unwrap_or(0)));
    let fit = aspect(&|node| fit(pod, node, strategy));
    let balance = aspect(&|node| balance(pod, node));
    (0..feasible.len())
        .map(|i| {
            WEIGHT_TAINTS * taints[i]
                + WEIGHT_NODE_AFFINITY * affinity[i]
                + WEIGHT_SPREAD * crowding[i]
                + WEIGHT_NEIGHBOURS * welcome[i]
                + WEIGHT_FIT * fit[i]
                + WEIGHT_BALANCE * balance[i]
        })
        .collect()
}

/// Pods of the same owner on the node.
fn siblings(pod: &Pod, node: &Node) -> i64 {
    if pod.owner.is_empty() {
        return 0;
    }
    i64::try_from(
        node.pods
            .values()
            .filter(|other| other.owner == pod.owner)
            .count(),
    )
    .unwrap_or(i64::MAX)
}

/// Points for what is left (spread) or used (packing) of processor and memory once the pod runs there.
fn fit(pod: &Pod, node: &Node, strategy: Strategy) -> i64 {
    let points: Vec<i64> = shares(pod, node)
        .into_iter()
        .map(|used| match strategy {
            Strategy::Spread => POINTS_MAX - used,
            Strategy::BinPack => used,
        })
        .collect();
    points.iter().sum::<i64>() / i64::try_from(points.len()).unwrap_or(1).max(1)
}

/// Points for using processor and memory alike: a node that runs out of one wastes the other.
fn balance(pod: &Pod, node: &Node) -> i64 {
    let [cpu, memory] = shares(pod, node);
    POINTS_MAX - (cpu - memory).abs() / 2
}

/// Percent of processor and memory used once the pod runs there.
fn shares(pod: &Pod, node: &Node) -> [i64; 2] {
    let asked = pod.requests.assumed();
    let (used, offered) = (&node.used_assumed, &node.facts.allocatable);
    let share = |used: i64, asked: i64, offered: i64| {
        if offered <= 0 {
            return POINTS_MAX;
        }
        let share =
            i128::from(used.saturating_add(asked)) * i128::from(POINTS_MAX) / i128::from(offered);
        i64::try_from(share)
            .unwrap_or(POINTS_MAX)
            .clamp(0, POINTS_MAX)
    };
    [
        share(used.cpu_milli, asked.cpu_milli, offered.cpu_milli),
        share(used.memory_bytes, asked.memory_bytes, offered.memory_bytes),
    ]
}

/// The largest gets all points, zero none.
fn more_is_better(raw: Vec<i64>) -> Vec<i64> {
    let max = raw.iter().copied().max().unwrap_or(0);
    raw.into_iter()
        .map(|value| if max > 0 { value * POINTS_MAX / max } else { 0 })
        .collect()
}

/// Zero gets all points, the largest none.
fn less_is_better(raw: Vec<i64>) -> Vec<i64> {
    let max = raw.iter().copied().max().unwrap_or(0);
    raw.into_iter()
        .map(|value| {
            if max > 0 {
                POINTS_MAX - value * POINTS_MAX / max
            } else {
                POINTS_MAX
            }
        })
        .collect()
}

/// The largest gets all points, the smallest none; all the same get none.
fn between_extremes(raw: Vec<i64>) -> Vec<i64> {
    let min = raw.iter().copied().min().unwrap_or(0);
    let max = raw.iter().copied().max().unwrap_or(0);
    raw.into_iter()
        .map(|value| {
            if max > min {
                (value - min) * POINTS_MAX / (max - min)
            } else {
                0
            }
        })
        .collect()
}

/// The best of the feasible nodes: most points, then fewest pods, then the first by name.
pub(crate) fn best<'a>(feasible: &[&'a Node], points: &[i64]) -> Option<(&'a Node, i64)> {
    let fewest_first = |node: &Node| std::cmp::Reverse(node.pods.len());
    // `max_by_key` takes the last of equals: from behind, that is the first by name.
    let ranked = feasible.iter().copied().zip(points.iter().copied()).rev();
    ranked.max_by_key(|(node, points)| (*points, fewest_first(node)))
}
