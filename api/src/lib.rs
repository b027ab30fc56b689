//! The words all sides speak: names, labels and ports, our policies, the pushed configuration, the typed client.
//!
//! No decisions are made here. Data-plane crates use it without the `client` feature.

pub mod names;
pub mod push;
