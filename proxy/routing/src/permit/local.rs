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
}

impl LocalLimiter {
    /// No use yet.
    pub fn new(rate: Rate) -> Self {
        Self {
            rate,
            buckets: Buckets::new(BUCKETS_MAX),
        }
    }

    /// Changes the rate and keeps what was used.
    pub fn retune(&mut self, rate: Rate) {
        if rate.per != self.rate.per {
            // Old uses are counted in other units: the new window starts empty.
            self.buckets = Buckets::new(BUCKETS_MAX);
        }
        self.rate = rate;
    }

    /// One request for this bucket.
    pub fn take(&mut self, key: &str, now: Time) -> Result<Permit, Refusal> {
        let window = self.buckets.touch(key, Window::default, |_, _| {});
        if window.take(&self.rate, now, 1) {
            return Ok(Permit {
                remaining: window.free(&self.rate, now),
                reset: window.reset(&self.rate, now),
            });
        }
        Err(Refusal {
            retry_after: window.wait(&self.rate, now),
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
}
