//! The application behind a sidecar.

/// The ports of the own pod's application, as services.
#[derive(Debug, Default)]
pub(crate) struct LocalApplications {}
