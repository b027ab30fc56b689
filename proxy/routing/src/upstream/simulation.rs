//! Endpoints and their load on simulated time: who gets which share of the requests.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use proptest::prelude::*;

use super::pick::{Algorithm, Candidate, Class, Pick, cost, pick};
use super::{Latency, Ring};
use crate::time::Time;

const REQUESTS: usize = 6000;

struct World {
    algorithm: Algorithm,
    endpoints: Vec<Endpoint>,
    ring: Ring,
    now: Time,
    seed: u64,
    /// When which endpoint answers a request that began when.
    answers: BinaryHeap<Reverse<(Time, usize, Time)>>,
}

#[derive(Clone, Default)]
struct Endpoint {
    takes: Duration,
    is_paused: bool,
    in_flight: u32,
    latency: Latency,
    got: usize,
}

impl World {
    fn new(algorithm: Algorithm, takes: &[Duration], seed: u64) -> Self {
        let endpoint = |takes: &Duration| Endpoint {
            takes: *takes,
            ..Endpoint::default()
        };
        let address = |number| ([10, 0, 0, number as u8], 80).into();
        Self {
            algorithm,
            endpoints: takes.iter().map(endpoint).collect(),
            ring: Ring::new((0..takes.len()).map(address)),
            now: Time::since_origin(Duration::from_secs(1000)),
            seed: seed | 1,
            answers: BinaryHeap::new(),
        }
    }

    /// Splitmix64.
    fn chance(&mut self) -> u64 {
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.seed ^ (self.seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Requests come at random, so far apart on average; how many each endpoint got.
    fn run(mut self, apart: Duration) -> Vec<usize> {
        for turn in 0..REQUESTS {
            let chance = self.chance() as f64 / u64::MAX as f64;
            self.now = self.now + apart.mul_f64(-(1.0 - chance).max(1e-9).ln());
            self.answer_what_is_due();
            let index = self.choose(turn);
            let endpoint = &mut self.endpoints[index];
            endpoint.in_flight += 1;
            endpoint.got += 1;
            let answer = (self.now + endpoint.takes, index, self.now);
            self.answers.push(Reverse(answer));
        }
        self.endpoints.iter().map(|endpoint| endpoint.got).collect()
    }

    fn answer_what_is_due(&mut self) {
        while let Some(Reverse((at, index, begun))) = self.answers.peek().copied() {
            if at > self.now {
                return;
            }
            self.answers.pop();
            let endpoint = &mut self.endpoints[index];
            endpoint.in_flight -= 1;
            match endpoint.is_paused {
                true => endpoint.latency.failed(at.since(begun), at),
                false => endpoint.latency.answered(at.since(begun), at),
            }
        }
    }

    fn choose(&mut self, turn: usize) -> usize {
        let chance = self.chance();
        let candidate = |index: usize| {
            let endpoint = &self.endpoints[index];
            let (in_flight, is_paused) = (endpoint.in_flight, endpoint.is_paused);
            let requests = match self.algorithm {
                Algorithm::PeakEwma => endpoint.latency.cost(in_flight, is_paused, self.now),
                _ => u64::from(in_flight) + 1,
            };
            Candidate {
                cost: cost(requests, is_paused),
                class: Class::Ready,
            }
        };
        let count = self.endpoints.len();
        let picked = match self.algorithm {
            Algorithm::ConsistentHash => self.ring.pick(&chance.to_be_bytes(), candidate, chance),
            algorithm => pick(algorithm, count, candidate, turn, chance),
        };
        match picked {
            Pick::Endpoint(index) => index,
            none => panic!("{none:?}"),
        }
    }
}

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// An endpoint's part of all requests, as a multiple of an equal share.
fn share(got: &[usize], index: usize) -> f64 {
    got[index] as f64 * got.len() as f64 / REQUESTS as f64
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Among equals nobody gets much more than its share, nor much less.
    #[test]
    fn equals_share_equally(count in 1_usize..10, busy in 1_u32..40, seed: u64) {
        let within = [
            (Algorithm::LeastRequest, 0.2),
            (Algorithm::PeakEwma, 0.2),
            (Algorithm::RoundRobin, 0.01),
            (Algorithm::Random, 0.2),
            // What 160 points on a ring bring about.
            (Algorithm::ConsistentHash, 0.45),
        ];
        for (algorithm, off) in within {
            let world = World::new(algorithm, &vec![ms(10); count], seed);
            let got = world.run(ms(10) / busy);
            for index in 0..count {
                let share = share(&got, index);
                prop_assert!((share - 1.0).abs() <= off, "{:?}: {:?}", algorithm, got);
            }
        }
    }

    /// An endpoint that takes ten times as long gets little: by its latency at any load, by its requests under load.
    #[test]
    fn the_slow_get_less(count in 3_usize..8, seed: u64) {
        for (algorithm, apart, most) in [
            (Algorithm::PeakEwma, ms(50), 0.2),
            (Algorithm::PeakEwma, ms(1), 0.4),
            (Algorithm::LeastRequest, ms(1), 0.5),
        ] {
            let mut takes = vec![ms(10); count];
            takes[0] = ms(100);
            let got = World::new(algorithm, &takes, seed).run(apart);
            prop_assert!(share(&got, 0) < most, "{:?} {:?}: {:?}", algorithm, apart, got);
        }
    }

    /// Who asked for a pause gets what others are too busy for.
    #[test]
    fn the_paused_get_less(count in 3_usize..8, seed: u64) {
        for algorithm in [Algorithm::LeastRequest, Algorithm::PeakEwma] {
            for (apart, most) in [(ms(50), 0.05), (ms(2), 0.3)] {
                let mut world = World::new(algorithm, &vec![ms(10); count], seed);
                world.endpoints[0].is_paused = true;
                let got = world.run(apart);
                prop_assert!(share(&got, 0) < most, "{:?} {:?}: {:?}", algorithm, apart, got);
            }
        }
    }
}
