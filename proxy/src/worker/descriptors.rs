//! The process's descriptors: connections are not taken in with the last of them.
//!
//! The rest is for what accepted connections need: connections to endpoints, files of the configuration. The kernel gives
//! the lowest number that is free, so the number of an accepted connection tells how many are in use.

use std::os::fd::{AsRawFd as _, BorrowedFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use crate::clock;

/// How many there are, and who waits for one.
#[derive(Debug)]
pub(crate) struct Descriptors {
    /// From this number on they are scarce.
    scarce: RawFd,
    closed: Notify,
    /// When people were told last, in nanoseconds of the engine's clock; zero: never.
    told_at: AtomicU64,
}

/// Others free descriptors as well, and say nothing.
const PATIENCE: Duration = Duration::from_secs(1);
/// Between two lines of the log about the same want.
const TOLD_EVERY: Duration = Duration::from_secs(10);

impl Descriptors {
    /// Takes as many as the process may have: the usual limit is that of programs that cannot count further.
    pub(crate) fn claim() -> Self {
        let limit = getrlimit(Resource::RLIMIT_NOFILE);
        let limit = limit.map_or(u64::MAX, |(soft, hard)| {
            match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
                Ok(()) => hard,
                Err(_) => soft,
            }
        });
        Self {
            scarce: scarce(limit),
            closed: Notify::new(),
            told_at: AtomicU64::new(0),
        }
    }

    pub(super) fn is_scarce(&self, newest: RawFd) -> bool {
        newest >= self.scarce
    }

    /// A client's connection has closed.
    pub(super) fn freed(&self) {
        self.closed.notify_waiters();
    }

    /// What closes from now on ends [`wait`](Self::wait).
    pub(super) fn closing(&self) -> Notified<'_> {
        self.closed.notified()
    }

    /// Returns when a connection has closed, or something else: another of `any` descriptor tells.
    pub(super) async fn wait(&self, closing: Notified<'_>, any: BorrowedFd<'_>, listener: &str) {
        let now = clock::now().as_nanos().max(1);
        let told_at = self.told_at.load(Ordering::Relaxed);
        if told_at == 0 || now.saturating_sub(told_at) >= TOLD_EVERY.as_nanos() as u64 {
            self.told_at.store(now, Ordering::Relaxed);
            tracing::warn!(
                listener,
                kept_from = self.scarce,
                "descriptors run out: accepting goes on as connections close; a higher limit (ulimit -n) takes more"
            );
        }
        let mut closing = closing;
        while tokio::time::timeout(PATIENCE, closing).await.is_err() {
            closing = self.closing();
            let newest = any.try_clone_to_owned();
            if newest.is_ok_and(|newest| !self.is_scarce(newest.as_raw_fd())) {
                return;
            }
        }
    }
}

/// A quarter is kept: not every client has an endpoint's connection to itself, but many may.
fn scarce(limit: u64) -> RawFd {
    let kept = (limit / 4).max(16).min(limit / 2);
    RawFd::try_from(limit - kept).unwrap_or(RawFd::MAX)
}

#[cfg(test)]
mod tests {
    use super::scarce;

    #[test]
    fn some_are_kept() {
        let check = |limit, expected| assert_eq!(scarce(limit), expected, "{limit}");
        check(20, 10);
        check(64, 48);
        check(1024, 768);
        check(1_048_576, 786_432);
        check(u64::MAX, i32::MAX);
    }
}
