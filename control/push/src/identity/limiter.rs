//! How often one workload may ask for certificates.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// At once: restarts and retries after failures.
const BURST: u32 = 20;
/// One more after this time: with the shortest sensible life of a certificate (some seconds) still enough.
const REFILL: Duration = Duration::from_millis(500);
/// Askers remembered; above it those that would be permitted anyway are forgotten.
const ASKERS_MAX: usize = 16 * 1024;

/// A bucket for each asker, kept as the moment when it is full again.
#[derive(Debug, Default)]
pub(super) struct Limiter {
    full_at: HashMap<String, Instant>,
}

impl Limiter {
    pub(super) fn permit(&mut self, asker: &str, now: Instant) -> bool {
        if self.full_at.len() >= ASKERS_MAX {
            self.full_at.retain(|_, full_at| *full_at > now);
        }
        let full_at = self.full_at.get(asker).copied().unwrap_or(now).max(now) + REFILL;
        if full_at > now + REFILL * BURST {
            return false;
        }
        self.full_at.insert(asker.to_owned(), full_at);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_one_each_refill() {
        let start = Instant::now();
        let mut limiter = Limiter::default();
        let mut permitted = |asker: &str, after: Duration| {
            (0..100)
                .filter(|_| limiter.permit(asker, start + after))
                .count()
        };
        assert_eq!(permitted("a", Duration::ZERO), BURST as usize);
        assert_eq!(permitted("b", Duration::ZERO), BURST as usize);
        assert_eq!(permitted("a", REFILL * 3), 3);
        assert_eq!(permitted("a", REFILL * 1000), BURST as usize);
    }
}
