//! Time as an argument.

use std::ops::Add;
use std::time::Duration;

/// A moment, in nanoseconds since an origin that the caller chose (monotonic; usually the start of the process).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Time(u64);

impl Time {
    /// The origin itself.
    pub const ZERO: Self = Self(0);
    /// Later than any other; for deadlines that never come.
    pub const MAX: Self = Self(u64::MAX);

    /// `elapsed` since the origin. Saturates after 584 years.
    pub fn since_origin(elapsed: Duration) -> Self {
        Self(nanos(elapsed))
    }

    /// Nanoseconds since the origin.
    pub fn as_nanos(self) -> u64 {
        self.0
    }

    /// The moment `nanos` nanoseconds after the origin.
    pub fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// How long after `earlier` this is; zero when it is not.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// `duration` before this, or the origin.
    pub fn before(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(nanos(duration)))
    }
}

impl Add<Duration> for Time {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(nanos(duration)))
    }
}

/// A duration in nanoseconds, saturating.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
