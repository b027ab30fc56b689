//! How long to wait before the next attempt. Pure: the chance is an argument.

use std::time::Duration;

/// Doubles from `min` to `max`, with the upper half spread by chance so that a fleet does not come back at once.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    min: Duration,
    max: Duration,
    failures: u32,
}

impl Backoff {
    /// `min` must be above zero and at most `max`.
    pub(crate) const fn new(min: Duration, max: Duration) -> Self {
        assert!(!min.is_zero() && min.as_nanos() <= max.as_nanos());
        Self {
            min,
            max,
            failures: 0,
        }
    }

    /// It worked: the next failure waits `min` again.
    pub(crate) fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// It failed once more: how long to wait. `chance` in 0..1.
    pub(crate) fn failed(&mut self, chance: f64) -> Duration {
        let doubled = self.min.saturating_mul(1 << self.failures.min(30));
        self.failures = self.failures.saturating_add(1);
        let longest = doubled.min(self.max);
        longest.mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_to_its_end_and_starts_over() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_millis(500));
        let waits: Vec<u128> = (0..5).map(|_| backoff.failed(1.0).as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 500, 500]);
        backoff.succeeded();
        assert_eq!(backoff.failed(0.0).as_millis(), 50);
    }
}
