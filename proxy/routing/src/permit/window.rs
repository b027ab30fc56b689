//! Never more than so many in any window of so long.

use std::collections::VecDeque;
use std::time::Duration;

use crate::time::{Time, nanos};

/// `requests` in any window of `per`, and up to `burst` more that pile up while fewer come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// At least 1.
    pub requests: u64,
    /// Length of the window; at least 1 ns.
    pub per: Duration,
    /// Extra tokens.
    pub burst: u64,
}

impl Rate {
    /// A rate; a zero count or window is taken as the smallest one.
    pub fn new(requests: u64, per: Duration, burst: u64) -> Self {
        Self {
            requests: requests.max(1),
            per: per.max(Duration::from_nanos(1)),
            burst,
        }
    }

    /// The most that any window of `per` can hold.
    pub fn capacity(&self) -> u64 {
        self.requests.saturating_add(self.burst)
    }

    /// This rate's part for one of `replicas`; never less than one request.
    pub fn share(&self, replicas: u32) -> Self {
        let replicas = u64::from(replicas.max(1));
        Self::new(self.requests / replicas, self.per, self.burst / replicas)
    }

    /// Uses are remembered to this precision, rounded up, so that a window never holds more entries than
    /// [`TICKS_PER_WINDOW`] and errs on the strict side by less than 0.03 %.
    fn tick(&self) -> u64 {
        (nanos(self.per) / TICKS_PER_WINDOW).max(1)
    }
}

const TICKS_PER_WINDOW: u64 = 4096;

/// The uses of one bucket within the last `per`.
///
/// A log instead of a counter per fixed window (which lets twice the rate pass at a boundary) or a leaky bucket
/// (which refuses the second of two simultaneous requests).
#[derive(Clone, Debug, Default)]
pub(crate) struct Window {
    /// Tick (rounded up) and count, oldest first.
    uses: VecDeque<(u64, u64)>,
    held: u64,
    /// With a burst: when all piled-up tokens would be paid back (the "theoretical arrival time" of GCRA), in ns.
    debt_until: u64,
}

impl Window {
    /// Forgets what left the window.
    pub(crate) fn expire(&mut self, rate: &Rate, now: Time) {
        let tick = rate.tick();
        while let Some(&(at, count)) = self.uses.front() {
            if at.saturating_mul(tick).saturating_add(nanos(rate.per)) > now.as_nanos() {
                break;
            }
            self.held -= count;
            self.uses.pop_front();
        }
    }

    /// How many may be used now.
    pub(crate) fn free(&mut self, rate: &Rate, now: Time) -> u64 {
        self.expire(rate, now);
        let in_window = rate.capacity().saturating_sub(self.held);
        if rate.burst == 0 {
            return in_window;
        }
        let credit = cost(rate, rate.capacity()).saturating_sub(self.debt(now));
        in_window.min(credit / cost(rate, 1))
    }

    /// Records uses, whether or not they were free; `at` may lie a little in the past.
    pub(crate) fn charge(&mut self, rate: &Rate, now: Time, at: Time, count: u64) {
        if count == 0 {
            return;
        }
        let tick = at.as_nanos().div_ceil(rate.tick());
        self.held = self.held.saturating_add(count);
        let place = self.uses.partition_point(|&(other, _)| other < tick);
        match self.uses.get_mut(place) {
            Some((other, sum)) if *other == tick => *sum += count,
            _ => self.uses.insert(place, (tick, count)),
        }
        if rate.burst > 0 {
            self.debt_until = now.as_nanos() + self.debt(now) + cost(rate, count);
        }
    }

    /// Takes `count` if they are free.
    pub(crate) fn take(&mut self, rate: &Rate, now: Time, count: u64) -> bool {
        let free = self.free(rate, now) >= count;
        if free {
            self.charge(rate, now, now, count);
        }
        free
    }

    /// How long until one more is free; zero when one is.
    pub(crate) fn wait(&mut self, rate: &Rate, now: Time) -> Duration {
        if self.free(rate, now) > 0 {
            return Duration::ZERO;
        }
        let mut until = 0;
        if self.held >= rate.capacity()
            && let Some(&(tick, _)) = self.uses.front()
        {
            until = tick
                .saturating_mul(rate.tick())
                .saturating_add(nanos(rate.per));
        }
        if rate.burst > 0 {
            let allowed = cost(rate, rate.capacity()) - cost(rate, 1);
            until = until.max(self.debt_until.saturating_sub(allowed));
        }
        Duration::from_nanos(until.saturating_sub(now.as_nanos()).max(1))
    }

    /// How long until nothing of the past counts any more.
    pub(crate) fn reset(&self, rate: &Rate, now: Time) -> Duration {
        let last = self.uses.back().map_or(0, |&(tick, _)| {
            tick.saturating_mul(rate.tick())
                .saturating_add(nanos(rate.per))
        });
        Duration::from_nanos(last.max(self.debt_until).saturating_sub(now.as_nanos()))
    }

    /// Uses within the window.
    pub(crate) fn held(&self) -> u64 {
        self.held
    }

    /// Uses with their (rounded up) times, oldest first.
    pub(crate) fn uses<'a>(&'a self, rate: &'a Rate) -> impl Iterator<Item = (Time, u64)> + 'a {
        let tick = rate.tick();
        self.uses
            .iter()
            .map(move |&(at, count)| (Time::from_nanos(at.saturating_mul(tick)), count))
    }

    /// Entries of memory.
    pub(crate) fn entries(&self) -> usize {
        self.uses.len()
    }

    fn debt(&self, now: Time) -> u64 {
        self.debt_until.saturating_sub(now.as_nanos())
    }
}

/// Time in which `count` tokens come back, in ns, rounded up.
fn cost(rate: &Rate, count: u64) -> u64 {
    let product = u128::from(nanos(rate.per)) * u128::from(count);
    u64::try_from(product.div_ceil(u128::from(rate.requests))).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The most uses that any window of `per` held.
    fn densest(uses: &[u64], per: u64) -> usize {
        let mut most = 0;
        let mut start = 0;
        for end in 0..uses.len() {
            while uses[start] + per <= uses[end] {
                start += 1;
            }
            most = most.max(end + 1 - start);
        }
        most
    }

    proptest! {
        #[test]
        fn no_window_holds_more_than_allowed(
            requests in 1_u64..50,
            burst in prop_oneof![Just(0_u64), 1_u64..20],
            per_us in 1_u64..100_000,
            gaps in prop::collection::vec(0_u64..3_000_000, 1..400),
        ) {
            let rate = Rate::new(requests, Duration::from_micros(per_us), burst);
            let mut window = Window::default();
            let mut at = 0;
            let mut used = Vec::new();
            for gap in gaps {
                at += gap;
                let now = Time::from_nanos(at);
                if window.take(&rate, now, 1) {
                    used.push(at);
                } else {
                    let later = now + window.wait(&rate, now);
                    prop_assert!(window.clone().free(&rate, later) > 0, "wait was too short");
                }
            }
            prop_assert!(densest(&used, per_us * 1000) as u64 <= rate.capacity());
            // The long run: what piled up, and the rate.
            let allowed = rate.capacity() as f64 + at as f64 * requests as f64 / (per_us * 1000) as f64;
            prop_assert!(used.len() as f64 <= allowed + 1.0);
        }
    }

    #[test]
    fn a_burst_at_once_is_allowed_and_the_window_slides() {
        let rate = Rate::new(100, Duration::from_secs(1), 0);
        let mut window = Window::default();
        let ms = |ms| Time::since_origin(Duration::from_millis(ms));
        for _ in 0..100 {
            assert!(window.take(&rate, ms(500), 1));
        }
        assert!(!window.take(&rate, ms(1499), 1));
        assert!(window.take(&rate, ms(1501), 1));
    }

    #[test]
    fn ten_times_the_load_admits_the_rate() {
        let rate = Rate::new(100, Duration::from_secs(1), 0);
        let mut window = Window::default();
        let admitted = (0..30_000_u64)
            .filter(|ms| window.take(&rate, Time::since_origin(Duration::from_millis(*ms)), 1))
            .count();
        assert!((2940..=3000).contains(&admitted), "{admitted}");
    }
}
