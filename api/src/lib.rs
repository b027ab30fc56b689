//! The words all sides speak: names, labels and ports, our policies, the pushed configuration, the typed client.
//!
//! No decisions are made here. Data-plane crates use it without the `client` feature.

#[cfg(feature = "client")]
pub mod client;
pub mod names;
pub mod policies;
pub mod push;
