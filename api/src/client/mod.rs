//! What every control loop needs over [`kube`]: objects kept current in memory, a keyed queue with its workers,
//! Events, and the few writes that are always the same.
//!
//! The shape is the field's: a [`Cache`] watches one kind and tells its listeners what changed; listeners put keys
//! into a [`Queue`]; workers take keys, read caches, decide purely and write by patch. Nothing here polls.

mod cache;
mod connect;
mod event;
mod quantity;
mod queue;
mod write;

pub use cache::{Cache, Change, Key};
pub use connect::{ConnectError, connect};
pub use event::{EventKind, EventSink, Recorder, Reference};
pub use quantity::{BadQuantity, Quantity};
pub use queue::{Next, Queue};
pub use write::{
    is_already_exists, is_conflict, is_namespace_terminating, is_not_found, message,
    resource_version,
};
