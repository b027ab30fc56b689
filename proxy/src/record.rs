//! One line for each request and each TCP connection, written off the path by a thread of its own.

use std::sync::Arc;

use crate::metrics::Metrics;

/// How access records look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// Where records go.
#[derive(Debug)]
pub(crate) struct Recorder {}

impl Recorder {
    pub(crate) fn start(_format: Option<RecordFormat>, _metrics: Arc<Metrics>) -> Self {
        Self {}
    }
}
