//! Connections to endpoints.

/// The connections to one endpoint.
#[derive(Debug, Default)]
pub(crate) struct Pool {}

impl Pool {
    pub(crate) fn close(&self) {}
}
