//! Places pods on nodes: a pure `place`, and a thin loop that watches, binds and explains.

use tokio_util::sync::CancellationToken;

/// Runs the scheduler until `shutdown`; failures of the API server are waited out.
pub async fn run(client: kube::Client, shutdown: CancellationToken) -> Result<(), Failure> {
    let _ = client;
    shutdown.cancelled().await;
    Ok(())
}

/// Why the scheduler ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum Failure {}
