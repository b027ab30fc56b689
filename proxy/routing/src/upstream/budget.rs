//! Retries as a share of requests, so that a struggling service is not finished off by its callers.

use std::time::Duration;

use crate::time::Time;

/// Over this long requests and retries are compared.
const WINDOW: Duration = Duration::from_secs(10);
const SLOTS: usize = 10;
const SLOT: Duration = Duration::from_secs(1);

/// The budget of one service: within any ten seconds at most `percent` of its requests, plus `min_per_second`.
#[derive(Clone, Debug)]
pub struct RetryBudget {
    percent: u32,
    min_per_second: u32,
    slots: [Slot; SLOTS],
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    /// Seconds since the origin, plus one; zero is "never".
    second: u64,
    requests: u32,
    retries: u32,
}

impl RetryBudget {
    /// An empty budget.
    pub fn new(percent: u32, min_per_second: u32) -> Self {
        Self {
            percent,
            min_per_second,
            slots: [Slot::default(); SLOTS],
        }
    }

    /// Changes the terms and keeps the history.
    pub fn retune(&mut self, percent: u32, min_per_second: u32) {
        self.percent = percent;
        self.min_per_second = min_per_second;
    }

    /// A first attempt.
    pub fn request(&mut self, now: Time) {
        let slot = self.slot(now);
        slot.requests = slot.requests.saturating_add(1);
    }

    /// Whether another attempt is affordable; takes it if so.
    pub fn retry(&mut self, now: Time) -> bool {
        let (mut requests, mut retries) = (0_u64, 0_u64);
        let oldest = second(now).saturating_sub(SLOTS as u64 - 1);
        for slot in self
            .slots
            .iter()
            .filter(|slot| slot.second >= oldest.max(1))
        {
            requests += u64::from(slot.requests);
            retries += u64::from(slot.retries);
        }
        let allowed = requests * u64::from(self.percent) / 100
            + u64::from(self.min_per_second) * WINDOW.as_secs();
        let affordable = retries < allowed;
        if affordable {
            self.slot(now).retries += 1;
        }
        affordable
    }

    fn slot(&mut self, now: Time) -> &mut Slot {
        let second = second(now);
        let slot = &mut self.slots[(second % SLOTS as u64) as usize];
        if slot.second != second {
            *slot = Slot {
                second,
                ..Slot::default()
            };
        }
        slot
    }
}

fn second(now: Time) -> u64 {
    now.as_nanos() / SLOT.as_nanos() as u64 + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// In any ten seconds: retries ≤ percent of requests + min·10.
        #[test]
        fn the_budget_is_never_exceeded(
            percent in 0_u32..100,
            min in 0_u32..5,
            steps in prop::collection::vec((0_u64..2_000, prop::bool::ANY), 1..500),
        ) {
            let mut budget = RetryBudget::new(percent, min);
            let mut at_ms = 0;
            let mut log: Vec<(u64, bool)> = Vec::new();
            for (gap, retry) in steps {
                at_ms += gap;
                let now = Time::since_origin(Duration::from_millis(at_ms));
                if !retry {
                    budget.request(now);
                    log.push((at_ms, false));
                } else if budget.retry(now) {
                    log.push((at_ms, true));
                    // The same ten calendar seconds that the budget looks at.
                    let from = (at_ms / 1000).saturating_sub(9) * 1000;
                    let window = log.iter().filter(|(at, _)| *at >= from);
                    let retries = window.clone().filter(|(_, retry)| *retry).count() as u64;
                    let requests = window.filter(|(_, retry)| !retry).count() as u64;
                    prop_assert!(retries <= requests * u64::from(percent) / 100 + u64::from(min) * 10);
                }
            }
        }
    }

    #[test]
    fn nothing_is_affordable_without_budget() {
        let mut budget = RetryBudget::new(0, 0);
        budget.request(Time::ZERO);
        assert!(!budget.retry(Time::ZERO));
        budget.retune(100, 0);
        assert!(budget.retry(Time::ZERO));
        assert!(!budget.retry(Time::ZERO));
    }
}
