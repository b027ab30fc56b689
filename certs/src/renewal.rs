//! When to ask for the next certificate: a pure schedule. It never gives up and never drops a valid certificate.

use jiff::{SignedDuration, Timestamp};

use crate::expiry::Validity;

/// Due when this part of a certificate's remaining life at issue is over.
const DUE: f64 = 0.7;
/// Spread around [`DUE`], so that workloads that started together do not ask together.
const SPREAD: f64 = 0.05;
/// First pause after a failure; doubles with each further one.
const BACKOFF_MIN_S: f64 = 1.0;
/// Longest pause (ztunnel's figure).
const BACKOFF_MAX_S: f64 = 150.0;
/// While a certificate is valid, no pause is longer than this part of what is left of it: short-lived ones get many tries.
const BACKOFF_OF_LEFT: f64 = 0.1;
/// No two requests are closer than this, however short-lived the certificates are.
const PAUSE_MIN_S: f64 = 0.2;

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Make a key, ask, and report with [`Renewal::issued`] or [`Renewal::failed`].
    Request,
    /// Nothing before this moment.
    WaitUntil(Timestamp),
}

/// What is held, for readiness and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    Nothing,
    Valid(Validity),
    Expired(Validity),
}

/// The schedule of one identity's certificate.
#[derive(Clone, Debug)]
pub struct Renewal {
    held: Option<Validity>,
    next: Timestamp,
    /// Failures since the last success.
    failures: u32,
}

impl Renewal {
    /// Holds nothing: due at once.
    pub fn new(now: Timestamp) -> Self {
        Self {
            held: None,
            next: now,
            failures: 0,
        }
    }

    pub fn next(&self, now: Timestamp) -> Step {
        if self.next <= now {
            Step::Request
        } else {
            Step::WaitUntil(self.next)
        }
    }

    /// A certificate came. `chance` is uniform in 0..1.
    pub fn issued(&mut self, validity: Validity, now: Timestamp, chance: f64) {
        // The start may lie in the past (backdating): what counts is the life that is left.
        let left_s = validity.left(now).as_secs_f64().max(0.0);
        let due = DUE + SPREAD * (2.0 * chance.clamp(0.0, 1.0) - 1.0);
        self.held = Some(validity);
        self.failures = 0;
        self.next = later(now, (left_s * due).max(PAUSE_MIN_S));
    }

    /// No certificate came. `chance` is uniform in 0..1.
    pub fn failed(&mut self, now: Timestamp, chance: f64) {
        let doubled = BACKOFF_MIN_S * f64::powi(2.0, self.failures.min(16) as i32);
        self.failures = self.failures.saturating_add(1);
        let mut pause_s = doubled.min(BACKOFF_MAX_S);
        if let Held::Valid(validity) = self.held(now) {
            pause_s = pause_s.min(validity.left(now).as_secs_f64() * BACKOFF_OF_LEFT);
        }
        let jittered = pause_s * (0.5 + 0.5 * chance.clamp(0.0, 1.0));
        self.next = later(now, jittered.max(PAUSE_MIN_S));
    }

    pub fn held(&self, now: Timestamp) -> Held {
        match self.held {
            None => Held::Nothing,
            Some(validity) if now <= validity.not_after => Held::Valid(validity),
            Some(validity) => Held::Expired(validity),
        }
    }

    /// Failures since the last success, for logs and metrics.
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

fn later(now: Timestamp, seconds: f64) -> Timestamp {
    let pause = SignedDuration::try_from_secs_f64(seconds).unwrap_or(SignedDuration::MAX);
    now.saturating_add(pause).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const START_S: i64 = 1_800_000_000;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(START_S + seconds).unwrap()
    }

    fn validity(from_s: i64, to_s: i64) -> Validity {
        Validity {
            not_before: at(from_s),
            not_after: at(to_s),
        }
    }

    fn wait_s(renewal: &Renewal, now: Timestamp) -> f64 {
        match renewal.next(now) {
            Step::Request => 0.0,
            Step::WaitUntil(next) => now.duration_until(next).as_secs_f64(),
        }
    }

    #[test]
    fn a_new_schedule_is_due_at_once() {
        let renewal = Renewal::new(at(0));
        assert_eq!(renewal.next(at(0)), Step::Request);
        assert_eq!(renewal.held(at(0)), Held::Nothing);
    }

    #[test]
    fn backdating_does_not_bring_renewal_forward() {
        let mut renewal = Renewal::new(at(0));
        renewal.issued(validity(-300, 30), at(0), 0.5);
        assert_eq!(wait_s(&renewal, at(0)), 21.0);
    }

    #[test]
    fn a_certificate_that_is_over_already_does_not_make_it_spin() {
        let mut renewal = Renewal::new(at(0));
        renewal.issued(validity(-300, -1), at(0), 0.5);
        assert_eq!(renewal.held(at(0)), Held::Expired(validity(-300, -1)));
        assert_eq!(wait_s(&renewal, at(0)), PAUSE_MIN_S);
    }

    proptest! {
        #[test]
        fn renewal_lies_between_65_and_75_percent_of_what_is_left(
            ttl_s in 10i64..1_000_000, backdated_s in 0i64..1000, chance in 0.0f64..1.0,
        ) {
            let mut renewal = Renewal::new(at(0));
            renewal.issued(validity(-backdated_s, ttl_s), at(0), chance);
            let part = wait_s(&renewal, at(0)) / ttl_s as f64;
            prop_assert!((0.649..=0.751).contains(&part), "{part}");
        }

        /// Whatever fails for how long: it always asks again before long, never spins, keeps what is valid, and at least
        /// eight tries fall between the first one and expiry of a certificate that lives 30 s or more.
        #[test]
        fn failures_never_stop_it(ttl_s in 30i64..100_000, chances in prop::collection::vec(0.0f64..1.0, 64)) {
            let mut renewal = Renewal::new(at(0));
            renewal.issued(validity(0, ttl_s), at(0), chances[0]);
            let mut now = at(0);
            let mut tries_while_valid = 0;
            for chance in chances {
                if let Step::WaitUntil(next) = renewal.next(now) {
                    prop_assert!(next > now);
                    now = next;
                }
                prop_assert_eq!(renewal.next(now), Step::Request);
                match renewal.held(now) {
                    Held::Valid(_) => tries_while_valid += 1,
                    Held::Expired(_) => {}
                    Held::Nothing => prop_assert!(false, "forgot its certificate"),
                }
                renewal.failed(now, chance);
                let pause_s = wait_s(&renewal, now);
                prop_assert!((PAUSE_MIN_S..=BACKOFF_MAX_S).contains(&pause_s), "{}", pause_s);
            }
            prop_assert!(tries_while_valid >= 8, "{}", tries_while_valid);
        }

        #[test]
        fn success_forgets_failures(failures in 0u32..40, chance in 0.0f64..1.0) {
            let mut renewal = Renewal::new(at(0));
            for _ in 0..failures {
                renewal.failed(at(0), chance);
            }
            renewal.issued(validity(0, 1000), at(0), chance);
            prop_assert_eq!(renewal.failures(), 0);
            renewal.failed(at(700), chance);
            prop_assert!(wait_s(&renewal, at(700)) <= 1.0);
        }
    }
}
