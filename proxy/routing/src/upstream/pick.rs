//! Choice of an endpoint.

/// How endpoints are chosen.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Algorithm {
    /// Of two at random, the one with fewer requests in flight ("power of two choices").
    #[default]
    LeastRequest,
    /// Of two at random, the one where a request would take less time, by what it took before.
    PeakEwma,
    /// In turn, whatever it costs.
    RoundRobin,
    /// At random, whatever it costs.
    Random,
    /// By a key of the request, on a [`Ring`](super::Ring); requests without a key as [`LeastRequest`](Self::LeastRequest).
    ConsistentHash,
}

/// An endpoint as a choice sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// What a request costs there; endpoints of one service are measured alike ([`cost`], [`Latency`](super::Latency)).
    pub cost: u64,
    /// The best class wins; classes are never mixed.
    pub class: Class,
}

/// How good an endpoint is, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Its ejection is over and nobody tried it yet: this one request finds out.
    Probe,
    /// Takes requests.
    Ready,
    /// Failed a moment ago with this very request.
    Tried,
    /// About to go, still answering.
    Terminating,
    /// Ejected: takes nothing.
    Ejected,
}

/// The choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pick {
    /// Index of the endpoint.
    Endpoint(usize),
    /// There is none at all.
    Empty,
    /// All are ejected.
    AllEjected,
}

/// So many times dearer is an endpoint that asked for a pause (429): others get its share, and it is left something when they
/// are full.
const PAUSED_FACTOR: u64 = 16;

/// What a request costs at an endpoint: requests in flight, this one included, or what they cost in time.
pub fn cost(of_requests: u64, is_paused: bool) -> u64 {
    match is_paused {
        true => of_requests.saturating_mul(PAUSED_FACTOR),
        false => of_requests,
    }
}

/// Chooses one of `count` endpoints.
///
/// `turn` rises by one a request (for [`Algorithm::RoundRobin`]); `chance` is a random number.
pub fn pick(
    algorithm: Algorithm,
    count: usize,
    candidate: impl Fn(usize) -> Candidate,
    turn: usize,
    chance: u64,
) -> Pick {
    if count == 0 {
        return Pick::Empty;
    }
    let turns = matches!(algorithm, Algorithm::RoundRobin | Algorithm::Random);
    if !turns && let Some(index) = two_choices(count, &candidate, chance) {
        return Pick::Endpoint(index);
    }
    let Some(best) = (0..count).map(|index| candidate(index).class).min() else {
        return Pick::Empty;
    };
    if best == Class::Ejected {
        return Pick::AllEjected;
    }
    let members = (0..count).filter(|index| candidate(*index).class == best);
    let size = members.clone().count();
    let nth = match algorithm {
        // Another thread may have changed the last one's class since.
        Algorithm::RoundRobin => turn % size.max(1),
        Algorithm::Random => scale(chance, size),
        Algorithm::LeastRequest | Algorithm::PeakEwma | Algorithm::ConsistentHash => {
            let (first, second) = two_of(size, chance);
            let cost = |nth: usize| members.clone().nth(nth).map(|index| candidate(index).cost);
            if cost(second) < cost(first) {
                second
            } else {
                first
            }
        }
    };
    // Or it has between these passes; any endpoint that was there is a fair answer.
    members
        .clone()
        .nth(nth)
        .or_else(|| members.clone().next())
        .map_or(Pick::Endpoint(scale(chance, count)), Pick::Endpoint)
}

/// The usual case without looking at all endpoints: two at random, both ready. A probe that is due is found by the
/// slow way often enough: whenever one of the two is not ready.
fn two_choices(
    count: usize,
    candidate: &impl Fn(usize) -> Candidate,
    chance: u64,
) -> Option<usize> {
    let (first, second) = two_of(count, chance);
    let (a, b) = (candidate(first), candidate(second));
    let ready = a.class == Class::Ready && b.class == Class::Ready;
    ready.then_some(if b.cost < a.cost { second } else { first })
}

/// Two different indices below `count` (the same when there is only one).
fn two_of(count: usize, chance: u64) -> (usize, usize) {
    let first = scale(chance & 0xffff_ffff_0000_0000, count);
    if count < 2 {
        return (first, first);
    }
    let step = 1 + scale(chance << 32, count - 1);
    (first, (first + step) % count)
}

/// Maps a random number onto `0..count`.
fn scale(chance: u64, count: usize) -> usize {
    ((u128::from(chance) * count as u128) >> 64) as usize
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use proptest::prelude::*;

    const ALL: [Algorithm; 5] = [
        Algorithm::LeastRequest,
        Algorithm::PeakEwma,
        Algorithm::RoundRobin,
        Algorithm::Random,
        Algorithm::ConsistentHash,
    ];

    fn check(algorithm: Algorithm, candidates: &[(Class, u64)], expected: Pick) {
        for chance in [0, 1, u64::MAX / 3, u64::MAX / 2, u64::MAX] {
            let picked = pick(
                algorithm,
                candidates.len(),
                |index| Candidate {
                    class: candidates[index].0,
                    cost: candidates[index].1,
                },
                0,
                chance,
            );
            assert_eq!(picked, expected, "{candidates:?} with {chance}");
        }
    }

    #[test]
    fn the_best_class_wins() {
        use Class::{Ejected, Probe, Ready, Terminating, Tried};
        for algorithm in ALL {
            check(algorithm, &[], Pick::Empty);
            check(algorithm, &[(Ejected, 0), (Ejected, 0)], Pick::AllEjected);
            check(algorithm, &[(Ejected, 0), (Ready, 9)], Pick::Endpoint(1));
            check(
                algorithm,
                &[(Terminating, 0), (Ready, 9)],
                Pick::Endpoint(1),
            );
            check(
                algorithm,
                &[(Terminating, 0), (Ejected, 0)],
                Pick::Endpoint(0),
            );
            check(algorithm, &[(Tried, 0), (Ready, 9)], Pick::Endpoint(1));
            check(algorithm, &[(Probe, 0), (Ready, 0)], Pick::Endpoint(0));
        }
        for algorithm in [Algorithm::LeastRequest, Algorithm::PeakEwma] {
            check(algorithm, &[(Ready, 5), (Ready, 1)], Pick::Endpoint(1));
        }
    }

    /// Other threads change classes while one chooses.
    #[test]
    fn classes_may_change_meanwhile() {
        for (algorithm, changes_after) in ALL.iter().flat_map(|a| (0..8).map(move |n| (*a, n))) {
            let looks = Cell::new(0);
            let candidate = |_| {
                looks.set(looks.get() + 1);
                let class = match looks.get() > changes_after {
                    true => Class::Ejected,
                    false => Class::Probe,
                };
                Candidate { cost: 0, class }
            };
            let picked = pick(algorithm, 1, candidate, 7, 7);
            let fair = [Pick::Endpoint(0), Pick::AllEjected].contains(&picked);
            assert!(fair, "{algorithm:?} after {changes_after}: {picked:?}");
        }
    }

    #[test]
    fn round_robin_takes_turns() {
        let ready = |_| Candidate {
            class: Class::Ready,
            cost: 0,
        };
        let picks: Vec<Pick> = (0..4)
            .map(|turn| pick(Algorithm::RoundRobin, 3, ready, turn, 7))
            .collect();
        assert_eq!(picks, [0, 1, 2, 0].map(Pick::Endpoint));
    }

    proptest! {
        #[test]
        fn two_choices_differ_and_reach_all(count in 2_usize..200, chance: u64) {
            let (first, second) = two_of(count, chance);
            prop_assert!(first < count && second < count && first != second);
        }
    }
}
