//! The public face: open, read, write, watch.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use crate::journal::{Journal, Loaded};
use crate::memory::Memory;
use crate::redb_journal::{OpenError, RedbJournal};
use crate::watch::{Watch, WatchError};
use crate::writer::{self, Job};
use crate::{Entry, Event, Revision, Snapshot};

/// Writes that may wait for the writer. Beyond it `write` itself waits, so callers feel the pressure.
const QUEUE_WRITES_MAX: usize = 1024;

/// Between attempts to bring a failed medium back.
const RECOVERY_INTERVAL: Duration = Duration::from_millis(500);

/// What a write expects of its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// The key does not exist.
    Absent,
    /// The key was last modified at this revision.
    Unchanged(Revision),
}

/// One compare-and-swap.
#[derive(Debug, Clone)]
pub struct Write {
    /// `/registry/<group>/<resource>/…`
    pub key: Arc<str>,
    /// Refused with [`WriteError::Conflict`] otherwise.
    pub expect: Expect,
    /// The new value; `None` deletes the key.
    pub value: Option<Bytes>,
}

/// Why a write did not happen, or may not have.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The key is not as expected; nothing was written.
    #[error("the key is at revision {}, not as expected", .current.as_ref().map_or(0, |entry| entry.modified))]
    Conflict {
        /// What the key holds instead.
        current: Option<Arc<Entry>>,
    },
    /// The medium takes no writes at present (disk full, I/O error); nothing was written.
    #[error("the store takes no writes: {0}")]
    Unavailable(Arc<str>),
    /// The medium failed while the write was under way; it may appear later.
    #[error("the store failed during the write: {0}")]
    Unknown(Arc<str>),
    /// The store is shutting down; nothing was written.
    #[error("the store is closed")]
    Closed,
}

/// Whether writes are taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// They are.
    Writable,
    /// They are refused for this reason; reads and watches go on, and recovery is tried by itself.
    ReadOnly(Arc<str>),
}

type Observer = Box<dyn Fn(&Event) + Send + Sync>;

/// What readers, watchers and the writer share.
pub(crate) struct Shared {
    memory: RwLock<Memory>,
    health: Mutex<Health>,
    observer: OnceLock<Observer>,
    closed: AtomicBool,
}

impl Shared {
    pub(crate) fn new(loaded: Loaded) -> Shared {
        Shared {
            memory: RwLock::new(Memory::new(loaded)),
            health: Mutex::new(Health::Writable),
            observer: OnceLock::new(),
            closed: AtomicBool::new(false),
        }
    }

    // The locks guard plain data that is consistent between statements, so a panic elsewhere does not spoil it.
    pub(crate) fn memory(&self) -> RwLockReadGuard<'_, Memory> {
        self.memory.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn memory_mut(&self) -> RwLockWriteGuard<'_, Memory> {
        self.memory.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_health(&self, health: Health) {
        *self.health.lock().unwrap_or_else(PoisonError::into_inner) = health;
    }

    pub(crate) fn observe(&self, event: &Event) {
        if let Some(observer) = self.observer.get() {
            observer(event);
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.memory_mut().close();
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

/// Ends the writer when the last handle goes.
#[derive(Debug)]
struct Handle {
    /// `None` only while dropping.
    jobs: Option<mpsc::Sender<Job>>,
    writer: Mutex<Option<std::thread::JoinHandle<()>>>,
    shared: Arc<Shared>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.close();
        self.jobs = None;
        let writer = self
            .writer
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        // Joined, so that the file is unlocked when the last handle is gone: at most one commit long.
        if let Some(writer) = writer
            && writer.join().is_err()
        {
            tracing::error!("the store's writer had panicked");
        }
    }
}

/// A handle to the store; clones share it. The last one closes the file.
#[derive(Debug, Clone)]
pub struct Store {
    handle: Arc<Handle>,
}

impl Store {
    /// Opens the store's file, or creates it. Blocks for as long as reading it takes.
    pub fn open(path: &Path) -> Result<Store, OpenError> {
        let (journal, loaded) = RedbJournal::open(path)?;
        Store::with_journal(journal, loaded, RECOVERY_INTERVAL)
            .map_err(|source| OpenError::Thread { source })
    }

    pub(crate) fn with_journal(
        journal: impl Journal + 'static,
        loaded: Loaded,
        recovery_interval: Duration,
    ) -> Result<Store, std::io::Error> {
        let shared = Arc::new(Shared::new(loaded));
        let (jobs, queue) = mpsc::channel(QUEUE_WRITES_MAX);
        let writer = writer::spawn(journal, Arc::clone(&shared), queue, recovery_interval)?;
        let handle = Handle {
            jobs: Some(jobs),
            writer: Mutex::new(Some(writer)),
            shared,
        };
        Ok(Store {
            handle: Arc::new(handle),
        })
    }

    /// Revision of the last acknowledged write.
    pub fn revision(&self) -> Revision {
        self.handle.shared.memory().revision
    }

    /// The entry of a key.
    pub fn find(&self, key: &str) -> Option<Arc<Entry>> {
        self.handle.shared.memory().find(key).cloned()
    }

    /// The live entries under a prefix.
    pub fn range(&self, prefix: &str) -> Snapshot {
        let memory = self.handle.shared.memory();
        Snapshot {
            revision: memory.revision,
            entries: memory.range(prefix).cloned().collect(),
        }
    }

    /// The entries under a prefix as they were at a past revision; `None` when that is forgotten.
    pub fn range_at(&self, prefix: &str, revision: Revision) -> Option<Vec<Arc<Entry>>> {
        self.handle.shared.memory().range_at(prefix, revision)
    }

    /// How many entries lie under a prefix.
    pub fn count(&self, prefix: &str) -> usize {
        self.handle.shared.memory().range(prefix).count()
    }

    /// Revision of the last write under a prefix's resource, as far as it was seen since the start.
    pub fn last_write(&self, prefix: &str) -> Revision {
        let memory = self.handle.shared.memory();
        memory
            .existing_topic(prefix)
            .map_or(0, |topic| *topic.head.borrow())
    }

    /// Compare-and-swap. Returns the write's revision once it is durable.
    ///
    /// The write is carried out even if the future is dropped after the queue took it.
    pub async fn write(&self, write: Write) -> Result<Revision, WriteError> {
        let (reply, answer) = oneshot::channel();
        let jobs = self.handle.jobs.as_ref().ok_or(WriteError::Closed)?;
        jobs.send(Job { write, reply })
            .await
            .map_err(|_| WriteError::Closed)?;
        answer.await.map_err(|_| WriteError::Closed)?
    }

    /// Watches the keys under a prefix (within one resource) from just after `from`.
    pub fn watch(&self, prefix: &str, from: Revision) -> Result<Watch, WatchError> {
        Watch::new(Arc::clone(&self.handle.shared), prefix, from)
    }

    /// Forgets the history up to a revision; watches from before it get [`WatchError::Compacted`].
    pub fn compact(&self, revision: Revision) {
        self.handle.shared.memory_mut().compact(revision);
    }

    /// Installs the one observer: called for every committed write in revision order, before the write is
    /// acknowledged or visible to watchers. It must be quick and must not call the store. `false`: there was one.
    pub fn observe(&self, observer: impl Fn(&Event) + Send + Sync + 'static) -> bool {
        self.handle.shared.observer.set(Box::new(observer)).is_ok()
    }

    /// Whether writes are taken.
    pub fn health(&self) -> Health {
        let health = self.handle.shared.health.lock();
        health.unwrap_or_else(PoisonError::into_inner).clone()
    }
}
