//! The process's descriptors: connections are not taken in with the last of them.
//!
//! The rest is for what accepted connections need: connections to endpoints, files of the configuration. The kernel gives
//! the lowest number that is free, so the number of an accepted connection tells how many are in use.

use std::os::fd::{AsRawFd as _, BorrowedFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::sync::{Mutex, Notify};

use crate::clock;

/// How many there are, and who waits for one.
#[derive(Debug)]
pub(crate) struct Descriptors {
    /// From this number on they are scarce.
    scarce: RawFd,
    /// From this number on none is for clients: who looked at the same time may have taken more than were free.
    spent: RawFd,
    closed: Notify,
    /// One looks at a time: all would find the same number free, and each take one.
    turn: Mutex<()>,
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
        let (scarce, spent) = marks(limit);
        Self {
            scarce,
            spent,
            closed: Notify::new(),
            turn: Mutex::default(),
            told_at: AtomicU64::new(0),
        }
    }

    pub(super) fn is_scarce(&self, newest: RawFd) -> bool {
        newest >= self.scarce
    }

    pub(super) fn is_spent(&self, newest: RawFd) -> bool {
        newest >= self.spent
    }

    /// Whether the next connection finds a number that is not scarce: another of `any` descriptor tells.
    pub(super) fn has_room(&self, any: BorrowedFd<'_>) -> bool {
        let next = any.try_clone_to_owned();
        next.is_ok_and(|next| !self.is_scarce(next.as_raw_fd()))
    }

    /// There may be room for one more: a client's connection has closed.
    pub(super) fn freed(&self) {
        self.closed.notify_one();
    }

    /// Returns when there is room.
    pub(super) async fn wait(&self, any: BorrowedFd<'_>, listener: &str) {
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
        let _turn = self.turn.lock().await;
        loop {
            tokio::select! {
                () = self.closed.notified() => {}
                () = tokio::time::sleep(PATIENCE) => {}
            }
            if self.has_room(any) {
                return;
            }
        }
    }
}

/// From where on they are scarce and spent. A quarter is kept: not every client has an endpoint's connection to itself, but
/// many may.
fn marks(limit: u64) -> (RawFd, RawFd) {
    let kept = (limit / 4).max(16).min(limit / 2);
    let mark = |number| RawFd::try_from(number).unwrap_or(RawFd::MAX);
    (mark(limit - kept), mark(limit - kept / 2))
}

#[cfg(test)]
mod tests {
    use super::marks;

    #[test]
    fn some_are_kept() {
        let check = |limit, expected| assert_eq!(marks(limit), expected, "{limit}");
        check(20, (10, 15));
        check(64, (48, 56));
        check(1024, (768, 896));
        check(1_048_576, (786_432, 917_504));
        check(u64::MAX, (i32::MAX, i32::MAX));
    }
}
