//! What a durable medium has to do for the store.

use std::sync::Arc;

use crate::{Entry, Revision};

/// One step of a batch: the new state of a key.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    /// The key now holds this entry.
    Put(Arc<Entry>),
    /// The key is gone.
    Delete(Arc<str>),
}

/// What a medium held when it was opened.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    /// Revision of the last committed batch.
    pub(crate) revision: Revision,
    /// Every live entry, in key order.
    pub(crate) entries: Vec<Arc<Entry>>,
}

/// Why a batch is not known to be durable.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct JournalError(pub(crate) String);

/// The durable side: whole batches, one at a time, all or nothing.
pub(crate) trait Journal: Send {
    /// Makes a batch durable; `revision` is that of its last change. After an error the outcome is unknown until
    /// [`Journal::recover`] has answered.
    fn commit(&mut self, revision: Revision, changes: &[Change]) -> Result<(), JournalError>;

    /// Brings the medium back after an error and says which revision it holds.
    fn recover(&mut self) -> Result<Revision, JournalError>;
}
