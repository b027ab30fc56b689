//! Replicas and an owner of one global limit on simulated time: whatever the traffic and the network do, the limit
//! holds over all replicas together, and it is used up.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::lease::{Asking, Demand, Grant, LeaseHolder, Take};
use super::limit::OnFailure;
use super::owner::{QuotaOwner, QuotaTerms, ReplicaId};
use super::window::Rate;
use crate::time::Time;

/// What happens next.
enum Event {
    Request {
        replica: usize,
        asking: Asking,
        patience: u32,
    },
    ToOwner {
        replica: usize,
        demands: Vec<Demand>,
    },
    ToReplica {
        replica: usize,
        grant: Grant,
    },
    Cut {
        replica: usize,
    },
    Join {
        replica: usize,
    },
}

struct World {
    now: u64,
    rate: Rate,
    chance: u64,
    latency_max_us: u64,
    owner: QuotaOwner,
    holders: Vec<LeaseHolder>,
    names: Vec<ReplicaId>,
    joined: Vec<bool>,
    /// When each replica may send again.
    spaced: Vec<u64>,
    /// When the last message of each stream arrives: streams keep their order.
    arrives: BTreeMap<(usize, bool), u64>,
    events: BTreeMap<(u64, u64), Event>,
    serial: u64,
    admitted: Vec<(u64, usize)>,
    refused: usize,
}

const MS: u64 = 1_000_000;
const SPACING: u64 = 2 * MS;

impl World {
    fn new(rate: Rate, replicas: usize, latency_max_us: u64, seed: u64) -> Self {
        let now = 20_000 * MS;
        let mut owner = QuotaOwner::new(Time::ZERO);
        let terms = QuotaTerms {
            rate,
            replicas: replicas as u32,
        };
        owner.set_limit("limit", terms, Time::from_nanos(now));
        let holders = (0..replicas).map(|_| {
            let mut holder = LeaseHolder::new("limit".into(), true);
            holder.retune(rate, replicas as u32, OnFailure::Closed);
            holder
        });
        Self {
            now,
            rate,
            chance: seed | 1,
            latency_max_us,
            owner,
            holders: holders.collect(),
            names: (0..replicas)
                .map(|n| format!("replica-{n}").into())
                .collect(),
            joined: vec![true; replicas],
            spaced: vec![0; replicas],
            arrives: BTreeMap::new(),
            events: BTreeMap::new(),
            serial: 0,
            admitted: Vec::new(),
            refused: 0,
        }
    }

    fn at(&mut self, when: u64, event: Event) {
        self.serial += 1;
        self.events.insert((when, self.serial), event);
    }

    fn request(&mut self, when: u64, replica: usize) {
        let request = Event::Request {
            replica,
            asking: Asking::default(),
            patience: 50,
        };
        self.at(when, request);
    }

    /// When a message that is sent now arrives.
    fn arrival(&mut self, replica: usize, to_owner: bool) -> u64 {
        let when = self.now + self.latency();
        let last = self.arrives.entry((replica, to_owner)).or_insert(0);
        *last = when.max(*last);
        *last
    }

    /// xorshift: enough for a network.
    fn latency(&mut self) -> u64 {
        self.chance ^= self.chance << 13;
        self.chance ^= self.chance >> 7;
        self.chance ^= self.chance << 17;
        self.chance % (self.latency_max_us * 1000 + 1)
    }

    fn run(&mut self) {
        while let Some(next) = self.next_moment() {
            self.now = next;
            let now = Time::from_nanos(next);
            while let Some(entry) = self.events.first_entry() {
                if entry.key().0 > next {
                    break;
                }
                let event = entry.remove();
                self.happen(event, now);
            }
            if self.owner.next_due().is_some_and(|due| due <= now) {
                let grants = self.owner.serve_due(now);
                self.deliver(grants);
            }
            for replica in 0..self.holders.len() {
                self.talk(replica, now);
            }
        }
    }

    fn next_moment(&self) -> Option<u64> {
        let event = self.events.first_key_value().map(|((at, _), _)| *at)?;
        let due = self.owner.next_due().map_or(u64::MAX, Time::as_nanos);
        let talk = (0..self.holders.len())
            .filter_map(|replica| {
                Some(
                    self.holders[replica]
                        .due()?
                        .as_nanos()
                        .max(self.spaced[replica]),
                )
            })
            .min()
            .unwrap_or(u64::MAX);
        Some(event.min(due).min(talk).max(self.now))
    }

    fn happen(&mut self, event: Event, now: Time) {
        match event {
            Event::Request {
                replica,
                mut asking,
                patience,
            } => {
                match self.holders[replica].take("", now, &mut asking, patience > 0) {
                    Take::Admitted(_) => self.admitted.push((self.now, replica)),
                    Take::Refused(_) => self.refused += 1,
                    // The engine asks again when something changes; here, soon.
                    Take::Wait => self.at(
                        self.now + 5 * MS,
                        Event::Request {
                            replica,
                            asking,
                            patience: patience - 1,
                        },
                    ),
                }
            }
            Event::ToOwner { replica, demands } => {
                for demand in demands {
                    let grants = self.owner.demand(now, &self.names[replica], &demand);
                    self.deliver(grants);
                }
            }
            Event::ToReplica { replica, grant } => {
                if self.joined[replica] {
                    self.holders[replica].granted(now, &grant);
                }
            }
            Event::Cut { replica } if self.joined[replica] => {
                self.joined[replica] = false;
                self.holders[replica].set_connected(now, false);
                let name = self.names[replica].clone();
                self.owner.disconnected(&name);
                // What is on its way on the old stream is lost.
                self.events.retain(|_, event| {
                    !matches!(event, Event::ToOwner { replica: of, .. } | Event::ToReplica { replica: of, .. }
                        if *of == replica)
                });
            }
            Event::Join { replica } if !self.joined[replica] => {
                self.joined[replica] = true;
                self.holders[replica].set_connected(now, true);
            }
            Event::Cut { .. } | Event::Join { .. } => {}
        }
    }

    fn deliver(&mut self, grants: Vec<(ReplicaId, Grant)>) {
        for (to, grant) in grants {
            let replica = self.names.iter().position(|name| *name == to).unwrap();
            if self.joined[replica] {
                let when = self.arrival(replica, false);
                self.at(when, Event::ToReplica { replica, grant });
            }
        }
    }

    fn talk(&mut self, replica: usize, now: Time) {
        let due = self.holders[replica].due().is_some_and(|due| due <= now);
        if !due || !self.joined[replica] || self.now < self.spaced[replica] {
            return;
        }
        self.spaced[replica] = self.now + SPACING;
        let holder = &mut self.holders[replica];
        let demands = std::iter::from_fn(|| holder.next_demand(now)).collect();
        let when = self.arrival(replica, true);
        self.at(when, Event::ToOwner { replica, demands });
    }

    fn densest_window(&self) -> usize {
        let per = self.rate.per.as_nanos() as u64;
        let times: Vec<u64> = self.admitted.iter().map(|(at, _)| *at).collect();
        let mut start = 0;
        (0..times.len())
            .map(|end| {
                while times[start] + per <= times[end] {
                    start += 1;
                }
                end + 1 - start
            })
            .max()
            .unwrap_or(0)
    }
}

#[test]
fn ten_times_the_load_on_two_replicas_admits_the_limit() {
    let rate = Rate::new(100, Duration::from_secs(1), 0);
    let mut world = World::new(rate, 2, 500, 7);
    let start = world.now;
    for ms in 0..30_000_u64 {
        let replica = (ms % 2) as usize;
        world.request(start + ms * MS, replica);
    }
    world.run();
    assert!(world.densest_window() <= 100);
    let mut seconds = [0_usize; 30];
    for (at, _) in &world.admitted {
        seconds[((at - start) / (1000 * MS)).min(29) as usize] += 1;
    }
    assert!(
        seconds.iter().all(|count| (98..=100).contains(count)),
        "{seconds:?}"
    );
    let first = world
        .admitted
        .iter()
        .filter(|(_, replica)| *replica == 0)
        .count();
    let share = first as f64 / world.admitted.len() as f64;
    assert!((0.4..=0.6).contains(&share), "{share}");
}

#[test]
fn a_quiet_replica_leaves_its_part_to_a_busy_one() {
    let rate = Rate::new(100, Duration::from_secs(1), 0);
    let mut world = World::new(rate, 2, 500, 9);
    let start = world.now;
    for ms in 0..10_000_u64 {
        world.request(start + ms * MS, 0);
        if ms % 500 == 0 {
            world.request(start + ms * MS, 1);
        }
    }
    world.run();
    assert!(world.densest_window() <= 100);
    assert!(world.admitted.len() >= 970, "{}", world.admitted.len());
    let quiet = world
        .admitted
        .iter()
        .filter(|(_, replica)| *replica == 1)
        .count();
    assert!(quiet >= 1, "{quiet}");
}

#[test]
fn below_the_limit_nobody_is_refused() {
    let rate = Rate::new(1000, Duration::from_secs(1), 0);
    let mut world = World::new(rate, 2, 500, 3);
    let start = world.now;
    for ms in 0..5_000_u64 {
        let replica = (ms % 2) as usize;
        world.request(start + ms * 2 * MS, replica);
    }
    world.run();
    assert_eq!((world.admitted.len(), world.refused), (5_000, 0));
}

/// Windows err on the strict side, so that who comes exactly as often as allowed comes too often.
#[test]
fn who_stays_within_the_limit_is_never_refused() {
    fn check(replicas: usize, requests: u64, per_s: u64, every_ms: u64) {
        let rate = Rate::new(requests, Duration::from_secs(per_s), 0);
        let mut world = World::new(rate, replicas, 20_000, 5);
        let start = world.now;
        for count in 0..500 {
            let replica = (world.latency() % replicas as u64) as usize;
            world.request(start + count * every_ms * MS, replica);
        }
        world.run();
        assert_eq!(
            (world.admitted.len(), world.refused),
            (500, 0),
            "{requests} per {per_s} s on {replicas} replicas, one each {every_ms} ms"
        );
    }
    for replicas in [1, 2, 3, 5] {
        check(replicas, 5, 60, 12_100);
        check(replicas, 1, 5, 5_100);
        check(replicas, 2, 3600, 1_810_000);
        check(replicas, 60, 60, 1_100);
        check(replicas, 5, 60, 30_000);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn the_limit_holds_over_all_replicas(
        requests in 1_u64..60,
        burst in prop_oneof![Just(0_u64), 1_u64..20],
        per_ms in 50_u64..3_000,
        replicas in 1_usize..4,
        latency_max_us in 0_u64..20_000,
        seed: u64,
        traffic in prop::collection::vec(
            (prop_oneof![20 => 0_u64..20_000, 1 => 0_u64..4_000_000], 0_usize..4, 0_u8..40),
            1..600,
        ),
    ) {
        let rate = Rate::new(requests, Duration::from_millis(per_ms), burst);
        let mut world = World::new(rate, replicas, latency_max_us, seed);
        let mut at = world.now;
        for (gap_us, replica, kind) in traffic {
            at += gap_us * 1000;
            let replica = replica % replicas;
            world.request(at, replica);
            if kind == 0 {
                world.at(at, Event::Cut { replica });
                world.at(at + 30 * MS, Event::Join { replica });
            }
        }
        world.run();
        prop_assert!(world.densest_window() as u64 <= rate.capacity());
    }
}

#[test]
fn an_unknown_limit_is_not_answered() {
    let mut owner = QuotaOwner::new(Time::ZERO);
    let demand = Demand {
        limit: "other".into(),
        key: "".into(),
        seen: 1,
        want: 1,
        returned: 0,
        used: vec![],
        whole: true,
    };
    let replica: Arc<str> = "r".into();
    assert!(owner.demand(Time::ZERO, &replica, &demand).is_empty());
}
