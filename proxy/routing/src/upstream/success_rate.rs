//! Which part of an endpoint's requests succeeds, of late.

use std::time::Duration;

use crate::time::{Time, nanos};

/// When an endpoint that sometimes succeeds is ejected all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SuccessRatePolicy {
    /// Percent.
    pub below: u32,
    /// Requests that are over for longer do not count.
    pub window: Duration,
    /// Of fewer requests nothing is concluded.
    pub min_requests: u32,
}

/// The window moves on by such parts of it.
const SLOTS: usize = 10;

/// Requests of one endpoint within the window.
#[derive(Clone, Debug, Default)]
pub struct SuccessRate {
    slots: [Slot; SLOTS],
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    /// Since the origin, plus one; zero is "never".
    number: u64,
    requests: u32,
    successes: u32,
}

impl SuccessRate {
    /// A request is over.
    pub fn count(&mut self, policy: &SuccessRatePolicy, succeeded: bool, now: Time) {
        let number = number(policy, now);
        let slot = &mut self.slots[(number % SLOTS as u64) as usize];
        if slot.number != number {
            *slot = Slot {
                number,
                ..Slot::default()
            };
        }
        slot.requests = slot.requests.saturating_add(1);
        slot.successes = slot.successes.saturating_add(succeeded.into());
    }

    /// Whether too few succeeded.
    pub fn is_too_low(&self, policy: &SuccessRatePolicy, now: Time) -> bool {
        let newest = number(policy, now);
        let oldest = newest.saturating_sub(SLOTS as u64 - 1).max(1);
        // A number beyond the newest was given when the window was shorter.
        let recent = self
            .slots
            .iter()
            .filter(|slot| (oldest..=newest).contains(&slot.number));
        let (requests, successes) = recent.fold((0, 0), |(requests, successes), slot| {
            let (more, good) = (u64::from(slot.requests), u64::from(slot.successes));
            (requests + more, successes + good)
        });
        requests >= u64::from(policy.min_requests.max(1))
            && successes * 100 < requests * u64::from(policy.below)
    }
}

fn number(policy: &SuccessRatePolicy, now: Time) -> u64 {
    let slot = (nanos(policy.window) / SLOTS as u64).max(1);
    now.as_nanos() / slot + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: SuccessRatePolicy = SuccessRatePolicy {
        below: 80,
        window: Duration::from_secs(10),
        min_requests: 20,
    };

    /// Requests at moments in milliseconds, good and bad ones each.
    fn check(requests: &[(u64, u32, u32)], now: u64, expected: bool) {
        let at = |ms| Time::since_origin(Duration::from_millis(ms));
        let mut rate = SuccessRate::default();
        for (moment, good, bad) in requests {
            (0..*good).for_each(|_| rate.count(&POLICY, true, at(*moment)));
            (0..*bad).for_each(|_| rate.count(&POLICY, false, at(*moment)));
        }
        let is_too_low = rate.is_too_low(&POLICY, at(now));
        assert_eq!(is_too_low, expected, "{requests:?} at {now}");
    }

    #[test]
    fn what_a_shorter_window_counted_is_no_news() {
        let shorter = SuccessRatePolicy {
            window: Duration::from_secs(1),
            ..POLICY
        };
        let at = |seconds| Time::since_origin(Duration::from_secs(seconds));
        let mut rate = SuccessRate::default();
        (0..30).for_each(|_| rate.count(&shorter, false, at(100)));
        assert!(rate.is_too_low(&shorter, at(100)));
        assert!(!rate.is_too_low(&POLICY, at(101)));
    }

    #[test]
    fn too_few_of_enough_within_the_window() {
        check(&[], 0, false);
        check(&[(0, 0, 19)], 0, false);
        check(&[(0, 0, 20)], 0, true);
        check(&[(0, 16, 4)], 0, false);
        check(&[(0, 15, 5)], 0, true);
        check(&[(0, 15, 3), (5_000, 0, 2)], 5_000, true);
        check(&[(0, 15, 3), (9_999, 0, 2)], 9_999, true);
        // The first are forgotten.
        check(&[(0, 15, 3), (10_000, 0, 2)], 10_000, false);
        check(&[(0, 0, 30), (12_000, 30, 0)], 12_000, false);
        check(&[(0, 0, 30)], 60_000, false);
    }
}
