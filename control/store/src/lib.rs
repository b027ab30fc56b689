//! Revisioned objects: compare-and-swap, range, watch, compaction; durable in one redb file, read from memory.
//!
//! The semantics are etcd's, as far as an API server needs them:
//! - one revision counts every write of every key; it never falls, also not over a crash;
//! - a write names what it expects of its key ([`Expect`]) and is refused otherwise;
//! - an acknowledged write is fsynced. Many writers share one fsync (module `writer`);
//! - reads and watches see committed writes only, in revision order, and are served from memory.
//!
//! Deliberately absent: leases (the API server expires Events and tokens by itself) and multi-key transactions.
//! A cluster-wide store (etcd) would take the place of [`Store`] as a whole; the file format is behind
//! the trait `journal::Journal`, which is also where the tests inject faults.

mod journal;
mod memory;
mod redb_journal;
#[cfg(test)]
mod simulation;
mod store;
mod watch;
mod writer;

pub use memory::{Entry, Event, Snapshot};
pub use redb_journal::OpenError;
pub use store::{Expect, Health, Store, Write, WriteError};
pub use watch::{Watch, WatchError};

/// Counts every write; 0 is "before the first one".
pub type Revision = u64;
