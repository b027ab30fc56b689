//! The one writer: takes what is queued, checks it, commits it with one fsync, shows it, acknowledges it.
//!
//! A thread of its own because the commit blocks; group commit comes by itself: whatever arrives during one
//! fsync is the next batch.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::journal::{Change, Journal};
use crate::store::{Expect, Health, Shared, Write, WriteError};
use crate::{Entry, Event, Revision};

/// Writes per fsync: bounds the latency of a batch's first writer.
const BATCH_WRITES_MAX: usize = 512;

/// A write and where its answer goes.
pub(crate) struct Job {
    pub(crate) write: Write,
    pub(crate) reply: oneshot::Sender<Result<Revision, WriteError>>,
}

type Reply = oneshot::Sender<Result<Revision, WriteError>>;

/// A batch that passed its checks but is not durable yet.
#[derive(Default)]
struct Batch {
    changes: Vec<(Revision, Change)>,
    replies: Vec<(Reply, Revision)>,
    /// Writes that lost to an earlier one of the batch. They hear of it when that one is visible: a writer who reads
    /// again and retries would otherwise read the same old state.
    refused: Vec<(Reply, Option<Arc<Entry>>)>,
    /// What the batch's earlier writes did to a key; `None` is deleted.
    pending: HashMap<Arc<str>, Option<Arc<Entry>>>,
}

pub(crate) fn spawn(
    journal: impl Journal + 'static,
    shared: Arc<Shared>,
    queue: mpsc::Receiver<Job>,
    recovery_interval: Duration,
) -> Result<std::thread::JoinHandle<()>, std::io::Error> {
    std::thread::Builder::new()
        .name("store-writer".into())
        .spawn(move || {
            Writer {
                journal,
                shared,
                failed: None,
                recovery_interval,
            }
            .run(queue);
        })
}

struct Writer<J> {
    journal: J,
    shared: Arc<Shared>,
    failed: Option<Failed>,
    /// Between attempts to bring a failed medium back.
    recovery_interval: Duration,
}

/// The medium failed; the batch under way may or may not be on it.
struct Failed {
    reason: Arc<str>,
    changes: Vec<(Revision, Change)>,
}

/// What became of a batch whose commit failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Written,
    NotWritten,
}

impl<J: Journal> Writer<J> {
    fn run(mut self, mut queue: mpsc::Receiver<Job>) {
        let mut jobs = Vec::new();
        while queue.blocking_recv_many(&mut jobs, BATCH_WRITES_MAX) > 0 {
            if self.failed.is_none() {
                self.write(std::mem::take(&mut jobs));
            }
            while let Some(failed) = &self.failed {
                for job in jobs.drain(..) {
                    let _ = job
                        .reply
                        .send(Err(WriteError::Unavailable(Arc::clone(&failed.reason))));
                }
                if self.recover().is_some() {
                    break;
                }
                // Not a poll of state that could announce itself: a full disk does not say when it has room again.
                std::thread::sleep(self.recovery_interval);
                while let Ok(job) = queue.try_recv() {
                    jobs.push(job);
                }
                if queue.is_closed() && jobs.is_empty() {
                    return;
                }
            }
        }
    }

    fn write(&mut self, jobs: Vec<Job>) {
        let batch = self.check(jobs);
        let Some(&(revision, _)) = batch.changes.last() else {
            return;
        };
        let changes: Vec<Change> = batch
            .changes
            .iter()
            .map(|(_, change)| change.clone())
            .collect();
        match self.journal.commit(revision, &changes) {
            Ok(()) => {
                self.show(batch.changes);
                for (reply, revision) in batch.replies {
                    // The caller may have gone; its write stands.
                    let _ = reply.send(Ok(revision));
                }
                for (reply, current) in batch.refused {
                    let _ = reply.send(Err(WriteError::Conflict { current }));
                }
            }
            Err(error) => self.fail(error.to_string().into(), batch),
        }
    }

    /// The medium failed. Often it can be opened again at once, and then says what became of the batch.
    fn fail(&mut self, reason: Arc<str>, batch: Batch) {
        tracing::error!(%reason, "the store failed to write; it is read-only until that is repaired");
        self.shared
            .set_health(Health::ReadOnly(Arc::clone(&reason)));
        self.failed = Some(Failed {
            reason: Arc::clone(&reason),
            changes: batch.changes,
        });
        let fate = self.recover();
        for (reply, revision) in batch.replies {
            let reason = Arc::clone(&reason);
            let _ = reply.send(match fate {
                Some(Fate::Written) => Ok(revision),
                Some(Fate::NotWritten) => Err(WriteError::Unavailable(reason)),
                None => Err(WriteError::Unknown(reason)),
            });
        }
        for (reply, _) in batch.refused {
            let _ = reply.send(Err(WriteError::Unavailable(Arc::clone(&reason))));
        }
    }

    /// Answers the writes that are not as expected and numbers the others.
    fn check(&self, jobs: Vec<Job>) -> Batch {
        let memory = self.shared.memory();
        let mut batch = Batch::default();
        let mut revision = memory.revision;
        for Job { write, reply } in jobs {
            let current = match batch.pending.get(&write.key) {
                Some(pending) => pending.clone(),
                None => memory.find(&write.key).cloned(),
            };
            let as_expected = match (write.expect, &current) {
                (Expect::Absent, current) => current.is_none(),
                (Expect::Unchanged(at), Some(entry)) => entry.modified == at,
                (Expect::Unchanged(_), None) => false,
            };
            // Deleting what is absent would be a revision without a change.
            if !as_expected || (write.value.is_none() && current.is_none()) {
                if batch.pending.contains_key(&write.key) {
                    batch.refused.push((reply, current));
                } else {
                    let _ = reply.send(Err(WriteError::Conflict { current }));
                }
                continue;
            }
            revision += 1;
            let next = write.value.map(|value| {
                Arc::new(Entry {
                    key: Arc::clone(&write.key),
                    value,
                    created: current.map_or(revision, |entry| entry.created),
                    modified: revision,
                })
            });
            let change = match &next {
                Some(entry) => Change::Put(Arc::clone(entry)),
                None => Change::Delete(Arc::clone(&write.key)),
            };
            batch.changes.push((revision, change));
            batch.replies.push((reply, revision));
            batch.pending.insert(write.key, next);
        }
        batch
    }

    /// Makes durable changes visible: to the observer, in memory, to watchers.
    fn show(&self, changes: Vec<(Revision, Change)>) {
        let events = self.events(changes);
        // Before the lock is taken: the observer may need a while, and readers must not wait for it.
        for event in &events {
            self.shared.observe(event);
        }
        let mut memory = self.shared.memory_mut();
        for event in &events {
            memory.apply(event);
        }
        for event in events {
            memory.announce(event.key(), event.revision);
        }
    }

    /// The changes with what they replace; nobody but this thread writes, so that cannot change meanwhile.
    fn events(&self, changes: Vec<(Revision, Change)>) -> Vec<Arc<Event>> {
        let memory = self.shared.memory();
        let mut latest: HashMap<Arc<str>, Option<Arc<Entry>>> = HashMap::new();
        let events = changes.into_iter().map(|(revision, change)| {
            let (key, current) = match change {
                Change::Put(entry) => (Arc::clone(&entry.key), Some(entry)),
                Change::Delete(key) => (key, None),
            };
            let previous = match latest.get(&key) {
                Some(within_batch) => within_batch.clone(),
                None => memory.find(&key).cloned(),
            };
            latest.insert(key, current.clone());
            Arc::new(Event::new(revision, current, previous))
        });
        events.collect()
    }

    /// Tries to bring the medium back. If it turns out to hold the failed batch, that is shown now.
    fn recover(&mut self) -> Option<Fate> {
        let failed = self.failed.take()?;
        let held = match self.journal.recover() {
            Ok(revision) => revision,
            Err(error) => {
                tracing::debug!(%error, "the store's medium is not back yet");
                self.failed = Some(failed);
                return None;
            }
        };
        let written = failed.changes.last().is_some_and(|&(last, _)| last == held);
        if written {
            self.show(failed.changes);
        }
        tracing::info!(revision = held, "the store takes writes again");
        self.shared.set_health(Health::Writable);
        Some(if written {
            Fate::Written
        } else {
            Fate::NotWritten
        })
    }
}
