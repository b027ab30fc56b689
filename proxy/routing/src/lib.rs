//! The decisions of both proxies, pure: route, permit, pick, retry, break.
//!
//! Nothing here knows a clock, a socket, a runtime or a source of chance: time ([`Time`]) and random numbers are
//! arguments, so every decision can be replayed from a seed. Deliberately absent: HTTP types (attributes are plain
//! strings), configuration formats (tables are built from validated parts) and locks (the engine owns sharing).

pub mod identity;
pub mod permit;
pub mod route;
pub mod time;
pub mod upstream;

pub use identity::WorkloadId;
pub use time::Time;

/// A map whose keys come from configuration. Requests only ask: nobody outside chooses what collides with what, so that the
/// hash may be a fast one.
pub type Configured<K, V> = std::collections::HashMap<K, V, foldhash::fast::RandomState>;
