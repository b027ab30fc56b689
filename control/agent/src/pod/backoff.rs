//! How long a container that keeps ending waits before it is started again.

use std::time::{Duration, Instant};

/// Wait before the second restart.
const FIRST: Duration = Duration::from_secs(10);
/// Longest wait.
const LONGEST: Duration = Duration::from_secs(300);
/// A container that ran this long is taken for a healthy one that ends for the first time.
const FORGIVEN_AFTER: Duration = Duration::from_secs(600);

/// The waits of one container. The first restart is immediate; then 10 s, doubling to 300 s. A wait counts from the
/// last start, not from the end: starts are what must not come too often, and what ran long enough comes back at once.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Backoff {
    started: Option<Instant>,
    /// Least time between the last start and the next; zero until the first restart.
    gap: Duration,
}

impl Backoff {
    /// When the container may be started, if it is to wait.
    pub(crate) fn due(&self, now: Instant) -> Option<Instant> {
        let due = self.started? + self.gap;
        (due > now).then_some(due)
    }

    /// The wait, as people are told it.
    pub(crate) fn gap(&self) -> Duration {
        self.gap
    }

    /// The container is started now.
    pub(crate) fn started(&mut self, now: Instant) {
        self.gap = match self.started {
            None => Duration::ZERO,
            Some(before) if now.duration_since(before) > FORGIVEN_AFTER => Duration::ZERO,
            Some(_) => (self.gap * 2).clamp(FIRST, LONGEST),
        };
        self.started = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_are_forgiven() {
        let mut now = Instant::now();
        let mut backoff = Backoff::default();
        assert_eq!(backoff.due(now), None, "the first start");
        backoff.started(now);
        let mut waits = Vec::new();
        for _ in 0..8 {
            // Ends at once each time.
            let due = backoff.due(now).unwrap_or(now);
            waits.push((due - now).as_secs());
            now = due;
            backoff.started(now);
        }
        assert_eq!(waits, [0, 10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(
            backoff.due(now + Duration::from_secs(301)),
            None,
            "it ran longer than the wait"
        );
        now += FORGIVEN_AFTER + Duration::from_secs(1);
        backoff.started(now);
        assert_eq!(backoff.due(now), None, "as at first");
    }
}
