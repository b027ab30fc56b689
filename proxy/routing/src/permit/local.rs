//! A limit that this proxy counts on its own.

use super::buckets::{BUCKETS_MAX, Buckets};
use super::limit::{Permit, Refusal};
use super::window::{Rate, Window};
use crate::time::Time;

/// The buckets of one limit.
#[derive(Debug)]
pub struct LocalLimiter {
    rate: Rate,
    buckets: Buckets<Window>,
    /// Entries of all windows together.
    entries: usize,
}

/// 16 bytes each: four megabytes for one limit at worst.
const ENTRIES_MAX: usize = 256 * 1024;

impl LocalLimiter {
    /// No use yet.
    pub fn new(rate: Rate) -> Self {
        Self {
            rate,
            buckets: Buckets::new(BUCKETS_MAX),
            entries: 0,
        }
    }

    /// Changes the rate and keeps what was used.
    pub fn retune(&mut self, rate: Rate) {
        if rate.per != self.rate.per {
            // Old uses are counted in other units: the new window starts empty.
            self.buckets = Buckets::new(BUCKETS_MAX);
            self.entries = 0;
        }
        self.rate = rate;
    }

    /// One request for this bucket.
    pub fn take(&mut self, key: &str, now: Time) -> Result<Permit, Refusal> {
        let mut forgotten = 0;
        let window = self
            .buckets
            .touch(key, Window::default, |_, old| forgotten = old.entries());
        let before = window.entries();
        let decision = Self::decide(&self.rate, window, now);
        self.entries = (self.entries + window.entries()).saturating_sub(before + forgotten);
        while self.entries > ENTRIES_MAX && self.buckets.len() > 1 {
            let gone = self.buckets.pop_oldest().map_or(0, |old| old.entries());
            self.entries -= gone.min(self.entries);
        }
        decision
    }

    fn decide(rate: &Rate, window: &mut Window, now: Time) -> Result<Permit, Refusal> {
        if window.take(rate, now, 1) {
            return Ok(Permit {
                remaining: window.free(rate, now),
                reset: window.reset(rate, now),
            });
        }
        Err(Refusal {
            retry_after: window.wait(rate, now),
        })
    }

    /// Buckets that were forgotten to stay within memory.
    pub fn evicted(&self) -> u64 {
        self.buckets.evicted()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn buckets_do_not_share() {
        let mut limiter = LocalLimiter::new(Rate::new(1, Duration::from_secs(1), 0));
        let now = Time::ZERO;
        assert!(limiter.take("a", now).is_ok());
        assert!(limiter.take("b", now).is_ok());
        let refused = limiter.take("a", now).unwrap_err();
        assert_eq!(refused.retry_after, Duration::from_secs(1));
        assert!(limiter.take("a", now + Duration::from_secs(1)).is_ok());
    }

    #[test]
    fn memory_is_bounded_however_many_clients_come() {
        let mut limiter = LocalLimiter::new(Rate::new(1000, Duration::from_secs(60), 0));
        for client in 0..2_000_u64 {
            let key = client.to_string();
            for step in 0..200_u64 {
                let now = Time::since_origin(Duration::from_millis(client + step * 20));
                let _ = limiter.take(&key, now);
            }
        }
        assert!(limiter.entries <= ENTRIES_MAX);
        assert!(limiter.evicted() > 0);
        assert!(limiter.buckets.len() > 1000);
    }
}
