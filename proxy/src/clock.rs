//! The one place where the engine reads a clock for its decisions.

use std::sync::OnceLock;
use std::time::Instant;

use meshgate_routing::Time;

/// The moment, on the engine's own scale (monotonic, from the first call on).
pub fn now() -> Time {
    at(Instant::now())
}

/// That moment on the same scale.
pub(crate) fn at(moment: Instant) -> Time {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    Time::since_origin(moment.saturating_duration_since(*ORIGIN.get_or_init(|| moment)))
}

/// A random number; quality enough for balancing and jitter, not for secrets.
pub(crate) fn chance() -> u64 {
    rand::random()
}
