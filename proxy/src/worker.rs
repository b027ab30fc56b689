//! Threads that serve connections.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::engine::{EngineError, Shared};
use crate::listen::Listener;

pub(crate) async fn run(
    _shared: Arc<Shared>,
    _listeners: Vec<Listener>,
    shutdown: CancellationToken,
) -> Result<(), EngineError> {
    shutdown.cancelled().await;
    Ok(())
}
