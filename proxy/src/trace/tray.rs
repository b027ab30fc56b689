//! Between the workers and the exporter: bounded, and nobody waits for the other.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::span::Finished;

/// What one worker's requests may take here, besides their number.
const WAITING_BYTES_MAX: usize = 4 * 1024 * 1024;

/// One tray for each worker: they never meet each other, and the exporter only for the moment of an exchange.
#[derive(Debug)]
pub(super) struct Trays {
    trays: Box<[Mutex<Tray>]>,
    spans_max: usize,
    /// As many are company enough.
    enough: usize,
    /// Something lies in a tray that was empty, or enough does.
    filled: Notify,
}

#[derive(Debug, Default)]
struct Tray {
    requests: Vec<Finished>,
    spans: usize,
    bytes: usize,
}

impl Trays {
    pub(super) fn new(workers: usize, spans_max: usize, enough: usize) -> Self {
        Self {
            trays: (0..workers).map(|_| Mutex::default()).collect(),
            spans_max,
            enough,
            filled: Notify::new(),
        }
    }

    /// Takes a request's spans in; how many found no room.
    pub(super) fn put(&self, finished: Finished) -> Result<(), usize> {
        let mut tray = lock(&self.trays[finished.trace.worker]);
        let (before, more) = (tray.spans, finished.spans());
        let bytes = finished.bytes();
        if before + more > self.spans_max || tray.bytes + bytes > WAITING_BYTES_MAX {
            return Err(more);
        }
        tray.spans += more;
        tray.bytes += bytes;
        tray.requests.push(finished);
        let is_enough = (before..tray.spans).contains(&(self.enough.saturating_sub(1)));
        drop(tray);
        if before == 0 || is_enough {
            self.filled.notify_one();
        }
        Ok(())
    }

    /// Everything, of all workers.
    pub(super) fn empty(&self) -> Vec<Finished> {
        let taken = self
            .trays
            .iter()
            .map(|tray| std::mem::take(&mut *lock(tray)));
        taken.flat_map(|tray| tray.requests).collect()
    }

    /// Returns when a tray is no longer empty.
    pub(super) async fn some(&self) {
        while self.fullest() == 0 {
            self.filled.notified().await;
        }
    }

    /// Returns when sending is worth it.
    pub(super) async fn enough(&self) {
        while self.fullest() < self.enough {
            self.filled.notified().await;
        }
    }

    /// Spans in the fullest tray.
    fn fullest(&self) -> usize {
        let spans = self.trays.iter().map(|tray| lock(tray).spans);
        spans.max().unwrap_or_default()
    }
}

fn lock(tray: &Mutex<Tray>) -> MutexGuard<'_, Tray> {
    tray.lock().unwrap_or_else(PoisonError::into_inner)
}
