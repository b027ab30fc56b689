//! A limit on how much happens at once, with a bounded line of waiters.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

/// Counts what is inside. The limits are given at the door, so they may change at any time.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    inside: AtomicU32,
    waiting: AtomicU32,
    freed: Notify,
}

/// One place inside; given back when dropped.
#[derive(Debug)]
pub(crate) struct Pass(Arc<Gate>);

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GateRefusal {
    /// The line is full as well.
    LineFull,
    /// Waited in vain.
    WaitedInVain,
    /// What is left is for other clients.
    ShareSpent,
}

impl Gate {
    /// A place if one is free.
    pub(crate) fn try_enter(self: &Arc<Self>, limit: u32) -> Option<Pass> {
        self.inside
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |inside| {
                (inside < limit).then_some(inside + 1)
            })
            .ok()
            .map(|_| Pass(self.clone()))
    }

    /// A place, after waiting for one if need be.
    pub(crate) async fn enter(
        self: &Arc<Self>,
        limit: u32,
        line: u32,
        patience: Duration,
    ) -> Result<Pass, GateRefusal> {
        match self.try_enter(limit) {
            Some(pass) => Ok(pass),
            None => {
                self.wait_for(line, patience, || self.try_enter(limit))
                    .await
            }
        }
    }

    /// Waits in line until `attempt` gives something; it is asked whenever a place may have become free.
    pub(crate) async fn wait_for<T>(
        &self,
        line: u32,
        patience: Duration,
        mut attempt: impl FnMut() -> Option<T>,
    ) -> Result<T, GateRefusal> {
        let _place_in_line = Waiting::join(&self.waiting, line).ok_or(GateRefusal::LineFull)?;
        let waiting = async {
            loop {
                let freed = self.freed.notified();
                tokio::pin!(freed);
                // Registered before asking, so that nothing freed in between is missed.
                freed.as_mut().enable();
                if let Some(found) = attempt() {
                    return found;
                }
                freed.await;
            }
        };
        tokio::time::timeout(patience, waiting)
            .await
            .map_err(|_| GateRefusal::WaitedInVain)
    }

    /// Something that a waiter may use became free without anyone leaving.
    pub(crate) fn wake_one(&self) {
        if self.waiting.load(Ordering::Acquire) > 0 {
            self.freed.notify_one();
        }
    }
}

impl Pass {
    /// As [`Gate::wake_one`] for where this place is.
    pub(crate) fn wake_one(&self) {
        self.0.wake_one();
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.0.inside.fetch_sub(1, Ordering::AcqRel);
        self.0.wake_one();
    }
}

struct Waiting<'a>(&'a AtomicU32);

impl<'a> Waiting<'a> {
    fn join(waiting: &'a AtomicU32, line: u32) -> Option<Self> {
        waiting
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |count| {
                (count < line).then_some(count + 1)
            })
            .ok()
            .map(|_| Self(waiting))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_bounded_line_with_bounded_patience() {
        let gate = Arc::new(Gate::default());
        let patience = Duration::from_secs(3);
        let first = gate.enter(1, 1, patience).await.unwrap();
        let waiter = tokio::spawn({
            let gate = gate.clone();
            async move { gate.enter(1, 1, patience).await.map(drop) }
        });
        tokio::task::yield_now().await;
        let refused = gate.enter(1, 1, patience).await.unwrap_err();
        assert_eq!(refused, GateRefusal::LineFull);
        drop(first);
        assert_eq!(waiter.await.unwrap(), Ok(()));
        let _held = gate.enter(1, 1, patience).await.unwrap();
        let refused = gate.enter(1, 1, patience).await.unwrap_err();
        assert_eq!(refused, GateRefusal::WaitedInVain);
    }
}
