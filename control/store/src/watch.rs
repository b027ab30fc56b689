//! Watching: a cursor into a topic's history.
//!
//! A watcher owns no queue, so it cannot hold up a writer or memory: it reads the shared history from where it
//! stands, and one that falls out of the history's window is told so and has to list again.

use std::sync::Arc;

use tokio::sync::watch;

use crate::store::Shared;
use crate::{Event, Revision};

/// Most events handed out at once; bounds what one wake-up holds.
const BATCH_EVENTS_MAX: usize = 256;

/// Why a watch cannot go on.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum WatchError {
    /// The history no longer reaches back to the revision: list again, then watch from the list's revision.
    #[error("revision {from} is compacted, the history starts after {floor}")]
    Compacted {
        /// Where the watch wanted to go on.
        from: Revision,
        /// The oldest revision that could be watched from.
        floor: Revision,
    },
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
}

/// Events of keys under one prefix, in revision order, each exactly once.
#[derive(Debug)]
pub struct Watch {
    shared: Arc<Shared>,
    prefix: Box<str>,
    /// Everything up to this revision was delivered or is not under the prefix.
    seen: Revision,
    head: watch::Receiver<Revision>,
}

impl Watch {
    pub(crate) fn new(
        shared: Arc<Shared>,
        prefix: &str,
        from: Revision,
    ) -> Result<Watch, WatchError> {
        let head = {
            let mut memory = shared.memory_mut();
            let topic = memory.topic(prefix);
            if from < topic.floor {
                return Err(WatchError::Compacted {
                    from,
                    floor: topic.floor,
                });
            }
            topic.head.subscribe()
        };
        Ok(Watch {
            shared,
            prefix: prefix.into(),
            seen: from,
            head,
        })
    }

    /// The next events, at least one; waits for them. Cancel-safe.
    pub async fn next(&mut self) -> Result<Vec<Arc<Event>>, WatchError> {
        loop {
            // Marked seen before the history is read: a write in between wakes the wait below.
            self.head.borrow_and_update();
            let events = self.ready()?;
            if !events.is_empty() {
                return Ok(events);
            }
            if self.shared.is_closed() || self.head.changed().await.is_err() {
                return Err(WatchError::Closed);
            }
        }
    }

    /// The events that are there already, possibly none.
    pub fn ready(&mut self) -> Result<Vec<Arc<Event>>, WatchError> {
        let memory = self.shared.memory();
        let Some(topic) = memory.existing_topic(&self.prefix) else {
            return Ok(Vec::new());
        };
        if self.seen < topic.floor {
            return Err(WatchError::Compacted {
                from: self.seen,
                floor: topic.floor,
            });
        }
        let start = topic
            .events
            .partition_point(|event| event.revision <= self.seen);
        let mut events = Vec::new();
        for event in topic.events.range(start..) {
            if events.len() == BATCH_EVENTS_MAX {
                return Ok(events);
            }
            self.seen = event.revision;
            if event.key().starts_with(&*self.prefix) {
                events.push(Arc::clone(event));
            }
        }
        // Nothing of this topic lies between its last event and the store's revision, so the cursor may move on:
        // a quiet topic's watcher does not fall behind a compaction.
        self.seen = self.seen.max(memory.revision);
        Ok(events)
    }

    /// Every event up to this revision was delivered: what a bookmark may say.
    pub fn position(&self) -> Revision {
        self.seen
    }
}
