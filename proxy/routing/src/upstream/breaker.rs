//! Outlier ejection: endpoints that keep failing take no requests for a while, but never too many of them at once.

use std::time::Duration;

use super::success_rate::{SuccessRate, SuccessRatePolicy};
use crate::time::Time;

/// When an endpoint is ejected and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerPolicy {
    /// Failures in a row; zero: however many.
    pub consecutive_failures: u32,
    /// Failures among successes.
    pub success_rate: Option<SuccessRatePolicy>,
    /// The first ejection.
    pub ejection_base: Duration,
    /// Ejections double up to this.
    pub ejection_max: Duration,
    /// At most this part of a service's endpoints is ejected at once (rounded down).
    pub ejection_max_percent: u32,
}

impl Default for BreakerPolicy {
    fn default() -> Self {
        Self {
            consecutive_failures: 5,
            success_rate: None,
            ejection_base: Duration::from_secs(1),
            ejection_max: Duration::from_secs(60),
            ejection_max_percent: 50,
        }
    }
}

/// How many endpoints of a service are ejected; shared by its breakers, so that the floor holds for all together.
#[derive(Clone, Debug, Default)]
pub struct EjectionBook {
    ejected: u32,
}

impl EjectionBook {
    /// Ejected endpoints now.
    pub fn ejected(&self) -> u32 {
        self.ejected
    }

    /// An ejected endpoint left the service.
    pub fn forget(&mut self, breaker: &Breaker) {
        if breaker.is_ejected() {
            self.ejected = self.ejected.saturating_sub(1);
        }
    }

    fn room(&self, policy: &BreakerPolicy, endpoints: usize) -> bool {
        let most = endpoints as u64 * u64::from(policy.ejection_max_percent.min(100)) / 100;
        u64::from(self.ejected) < most
    }
}

/// One endpoint's record. The states of a breaker: closed, ejected (open), probing (half-open).
#[derive(Clone, Debug, Default)]
pub struct Breaker {
    state: State,
    /// While it takes requests, with a policy for it.
    rate: Option<Box<SuccessRate>>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Taking {
        failures: u32,
    },
    Ejected {
        until: Time,
        /// How many ejections without a success between them.
        times: u32,
    },
    /// The one request that decides; a new one is allowed when this takes longer than `until`.
    Probing {
        until: Time,
        times: u32,
    },
}

impl Default for State {
    fn default() -> Self {
        Self::Taking { failures: 0 }
    }
}

/// What a breaker says of its endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Takes requests.
    Taking,
    /// Takes none until then.
    Ejected(Time),
    /// May take one.
    ProbeDue,
}

/// What a report changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing to tell.
    None,
    /// Ejected until then.
    Ejected(Time),
    /// Taken back.
    Returned,
}

impl Breaker {
    /// The condition now.
    pub fn condition(&self, now: Time) -> Condition {
        match self.state {
            State::Taking { .. } => Condition::Taking,
            State::Ejected { until, .. } | State::Probing { until, .. } if now < until => {
                Condition::Ejected(until)
            }
            State::Ejected { .. } | State::Probing { .. } => Condition::ProbeDue,
        }
    }

    /// Failures since the last success, while it takes requests.
    pub fn failures(&self) -> u32 {
        match self.state {
            State::Taking { failures } => failures,
            _ => 0,
        }
    }

    /// Ejected or probing.
    pub fn is_ejected(&self) -> bool {
        !matches!(self.state, State::Taking { .. })
    }

    /// Claims the one probe; false when another request has it.
    pub fn probe(&mut self, policy: &BreakerPolicy, now: Time) -> bool {
        if self.condition(now) != Condition::ProbeDue {
            return false;
        }
        let (State::Ejected { times, .. } | State::Probing { times, .. }) = self.state else {
            return false;
        };
        self.state = State::Probing {
            until: now + policy.ejection_base.max(Duration::from_millis(100)),
            times,
        };
        true
    }

    /// A request succeeded. After an ejection only what ends while the probe is under way tells that the endpoint works:
    /// who fails every second request has successes under way when it is ejected.
    pub fn succeeded(
        &mut self,
        policy: &BreakerPolicy,
        book: &mut EjectionBook,
        now: Time,
    ) -> Change {
        match self.state {
            State::Taking { .. } => {
                self.count(policy, true, now);
                self.state = State::default();
                Change::None
            }
            State::Ejected { .. } => Change::None,
            State::Probing { .. } => {
                self.state = State::default();
                book.ejected = book.ejected.saturating_sub(1);
                Change::Returned
            }
        }
    }

    /// A request failed. `endpoints` is the size of the service, `chance` a random number for the jitter.
    pub fn failed(
        &mut self,
        policy: &BreakerPolicy,
        book: &mut EjectionBook,
        endpoints: usize,
        now: Time,
        chance: u64,
    ) -> Change {
        match self.state {
            State::Taking { failures } => {
                let failures = failures.saturating_add(1);
                self.state = State::Taking { failures };
                self.count(policy, false, now);
                let in_a_row =
                    policy.consecutive_failures > 0 && failures >= policy.consecutive_failures;
                let enough = in_a_row || self.fails_too_often(policy, now);
                if !enough || !book.room(policy, endpoints) {
                    return Change::None;
                }
                book.ejected += 1;
                // Whoever comes back begins anew.
                self.rate = None;
                self.eject(policy, 0, now, chance)
            }
            State::Probing { times, .. } => self.eject(policy, times, now, chance),
            // Late news of requests sent before the ejection.
            State::Ejected { .. } => Change::None,
        }
    }

    fn count(&mut self, policy: &BreakerPolicy, succeeded: bool, now: Time) {
        match &policy.success_rate {
            Some(terms) => {
                let rate = self.rate.get_or_insert_default();
                rate.count(terms, succeeded, now);
            }
            None => self.rate = None,
        }
    }

    fn fails_too_often(&self, policy: &BreakerPolicy, now: Time) -> bool {
        let terms = policy.success_rate.as_ref();
        terms
            .zip(self.rate.as_ref())
            .is_some_and(|(terms, rate)| rate.is_too_low(terms, now))
    }

    fn eject(&mut self, policy: &BreakerPolicy, times: u32, now: Time, chance: u64) -> Change {
        let doubled = policy
            .ejection_base
            .saturating_mul(1_u32.checked_shl(times).unwrap_or(u32::MAX))
            .min(policy.ejection_max.max(policy.ejection_base));
        // Up to a tenth longer, so that endpoints ejected together are not probed together.
        let jitter = doubled.mul_f64((chance >> 11) as f64 / (1_u64 << 53) as f64 / 10.0);
        let until = now + doubled + jitter;
        self.state = State::Ejected {
            until,
            times: times.saturating_add(1),
        };
        Change::Ejected(until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(ms: u64) -> Time {
        Time::since_origin(Duration::from_millis(ms))
    }

    #[test]
    fn ejected_probed_ejected_longer_and_back() {
        let policy = BreakerPolicy::default();
        let mut book = EjectionBook::default();
        let mut breaker = Breaker::default();
        for _ in 0..4 {
            assert_eq!(
                breaker.failed(&policy, &mut book, 2, at(0), 0),
                Change::None
            );
        }
        let ejected = breaker.failed(&policy, &mut book, 2, at(0), 0);
        assert_eq!(ejected, Change::Ejected(at(1000)));
        assert_eq!(breaker.condition(at(999)), Condition::Ejected(at(1000)));
        assert!(!breaker.probe(&policy, at(999)));
        assert!(breaker.probe(&policy, at(1000)));
        assert!(!breaker.probe(&policy, at(1001)), "one probe only");
        let again = breaker.failed(&policy, &mut book, 2, at(1002), 0);
        assert_eq!(again, Change::Ejected(at(3002)), "doubled");
        assert!(breaker.probe(&policy, at(3002)));
        let returned = breaker.succeeded(&policy, &mut book, at(3003));
        assert_eq!(returned, Change::Returned);
        assert_eq!(
            (breaker.condition(at(3003)), book.ejected()),
            (Condition::Taking, 0)
        );
    }

    /// Never so many failures in a row.
    #[test]
    fn who_fails_too_often_is_ejected() {
        let policy = BreakerPolicy {
            success_rate: Some(SuccessRatePolicy {
                below: 80,
                window: Duration::from_secs(10),
                min_requests: 20,
            }),
            ..BreakerPolicy::default()
        };
        let mut book = EjectionBook::default();
        let mut breaker = Breaker::default();
        for turn in 0..9 {
            let now = at(turn * 10);
            breaker.succeeded(&policy, &mut book, now);
            let failed = breaker.failed(&policy, &mut book, 2, now, 0);
            assert_eq!(failed, Change::None);
        }
        breaker.succeeded(&policy, &mut book, at(100));
        let ejected = breaker.failed(&policy, &mut book, 2, at(100), 0);
        assert_eq!(ejected, Change::Ejected(at(1100)));
        // What was under way goes on succeeding every second time.
        for _ in 0..20 {
            assert_eq!(breaker.succeeded(&policy, &mut book, at(105)), Change::None);
            let failed = breaker.failed(&policy, &mut book, 2, at(105), 0);
            assert_eq!(failed, Change::None);
        }
        assert_eq!(breaker.condition(at(106)), Condition::Ejected(at(1100)));
        assert!(breaker.probe(&policy, at(1100)));
        let returned = breaker.succeeded(&policy, &mut book, at(1101));
        assert_eq!(returned, Change::Returned);
        let failed = breaker.failed(&policy, &mut book, 2, at(1102), 0);
        assert_eq!(failed, Change::None, "it begins anew");
    }

    #[test]
    fn a_lost_probe_does_not_eject_forever() {
        let policy = BreakerPolicy {
            consecutive_failures: 1,
            ..BreakerPolicy::default()
        };
        let mut book = EjectionBook::default();
        let mut breaker = Breaker::default();
        breaker.failed(&policy, &mut book, 2, at(0), 0);
        assert!(breaker.probe(&policy, at(1000)));
        assert!(breaker.probe(&policy, at(2000)));
    }

    #[test]
    fn the_only_endpoint_is_never_ejected() {
        let policy = BreakerPolicy::default();
        let mut book = EjectionBook::default();
        let mut breaker = Breaker::default();
        for _ in 0..50 {
            assert_eq!(
                breaker.failed(&policy, &mut book, 1, at(0), 0),
                Change::None
            );
        }
    }

    proptest! {
        #[test]
        fn the_floor_is_kept(
            endpoints in 1_usize..12,
            percent in 0_u32..=100,
            rate: bool,
            steps in prop::collection::vec((0_usize..12, 0_u64..900, 0_u8..3, any::<u64>()), 1..400),
        ) {
            let policy = BreakerPolicy {
                consecutive_failures: 2,
                success_rate: rate.then_some(SuccessRatePolicy { below: 60, window: Duration::from_secs(5), min_requests: 3 }),
                ejection_max_percent: percent,
                ..BreakerPolicy::default()
            };
            let mut book = EjectionBook::default();
            let mut breakers = vec![Breaker::default(); endpoints];
            let mut now_ms = 0;
            for (index, gap, action, chance) in steps {
                now_ms += gap;
                let now = at(now_ms);
                let breaker = &mut breakers[index % endpoints];
                match action {
                    0 => {
                        breaker.succeeded(&policy, &mut book, now);
                    }
                    1 => {
                        breaker.probe(&policy, now);
                    }
                    _ => {
                        breaker.failed(&policy, &mut book, endpoints, now, chance);
                    }
                }
                let ejected = breakers.iter().filter(|breaker| breaker.is_ejected()).count();
                prop_assert_eq!(ejected, book.ejected() as usize);
                prop_assert!(ejected * 100 <= endpoints * percent as usize);
            }
        }
    }
}
