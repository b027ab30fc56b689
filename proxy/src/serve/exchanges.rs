//! The exchanges of one connection, counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use meshgate_routing::Time;
use tokio::sync::Notify;

use crate::clock;

/// What goes on, and went on, in a connection.
#[derive(Debug, Default)]
pub(super) struct Exchanges {
    open: AtomicU32,
    begun: AtomicU32,
    used_up: Notify,
    last_end: AtomicU64,
}

/// One exchange of a connection; over when dropped.
#[derive(Debug)]
pub(crate) struct OpenExchange(Arc<Exchanges>);

impl Exchanges {
    /// One more; the `most`-th is the last.
    pub(super) fn begin(self: &Arc<Self>, most: u32) -> OpenExchange {
        self.open.fetch_add(1, Ordering::AcqRel);
        if self.begun.fetch_add(1, Ordering::Relaxed).saturating_add(1) >= most {
            self.used_up.notify_one();
        }
        OpenExchange(self.clone())
    }

    /// Returns with the last request that the connection may carry.
    pub(super) async fn used_up(&self) {
        self.used_up.notified().await;
    }

    pub(super) fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire) > 0
    }

    /// When the last exchange ended.
    pub(super) fn last_end(&self) -> Time {
        Time::from_nanos(self.last_end.load(Ordering::Acquire))
    }
}

impl Drop for OpenExchange {
    fn drop(&mut self) {
        let now = clock::now().as_nanos();
        self.0.last_end.store(now, Ordering::Release);
        self.0.open.fetch_sub(1, Ordering::AcqRel);
    }
}
