//! How many requests may be under way.

use std::sync::Arc;

use meshgate_schema::Failure;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Requests that read, at a time; long-lived ones (watch, log) do not count. As in Kubernetes.
const READS_MAX: usize = 400;
/// Requests that write, at a time.
const WRITES_MAX: usize = 200;
/// Tokens, subjects and the like are small: what waits longer than this is better tried again elsewhere.
const RETRY_AFTER_S: u32 = 1;

/// Lets requests in, or says "later".
#[derive(Debug)]
pub(crate) struct Gate {
    reads: Arc<Semaphore>,
    writes: Arc<Semaphore>,
}

impl Gate {
    pub(crate) fn new() -> Gate {
        Gate {
            reads: Arc::new(Semaphore::new(READS_MAX)),
            writes: Arc::new(Semaphore::new(WRITES_MAX)),
        }
    }

    /// A place among the requests under way, held until it is dropped.
    pub(crate) fn enter(&self, writes: bool) -> Result<OwnedSemaphorePermit, Failure> {
        let places = if writes { &self.writes } else { &self.reads };
        Arc::clone(places).try_acquire_owned().map_err(|_| {
            Failure::too_many_requests("too many requests, please try again later", RETRY_AFTER_S)
        })
    }

    /// Requests under way: reading and writing.
    pub(crate) fn in_flight(&self) -> (usize, usize) {
        (
            READS_MAX - self.reads.available_permits(),
            WRITES_MAX - self.writes.available_permits(),
        )
    }
}
