//! How many requests may be under way.

use std::sync::Arc;

use meshgate_schema::Failure;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Requests that read, at a time; long-lived ones (watch, log) do not count. As in Kubernetes.
const READS_MAX: usize = 400;
/// Requests that write, at a time.
const WRITES_MAX: usize = 200;
/// Seconds after which a refused client is asked to try again.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_one_is_refused_until_one_leaves() {
        let gate = Gate::new();
        let mut inside: Vec<_> = (0..WRITES_MAX).map(|_| gate.enter(true)).collect();
        assert!(inside.iter().all(Result::is_ok));
        assert_eq!(gate.in_flight(), (0, WRITES_MAX));
        let refused = gate.enter(true).map(|_| ());
        assert_eq!(refused.map_err(|failure| failure.code), Err(429));
        assert!(
            gate.enter(false).is_ok(),
            "readers have places of their own"
        );
        inside.pop();
        assert!(gate.enter(true).is_ok());
    }
}
