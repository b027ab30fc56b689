//! The controllers alone, against any API server: `KUBECONFIG=… cargo run -p meshgate-controllers --example control`.
//! `NODE_GRACE_S` shortens how long a node may be silent, `EVICTION_AFTER_S` how long its pods stay.

use std::time::Duration;

use anyhow::Context as _;
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let kubeconfig = std::env::var_os("KUBECONFIG").context("KUBECONFIG is not set")?;
    let client = meshgate_api::client::connect(kubeconfig.as_ref()).await?;
    let mut options = meshgate_controllers::Options::new("not a certificate".to_owned());
    if let Some(seconds) = seconds("NODE_GRACE_S")? {
        options.node_grace = seconds;
    }
    options.eviction_after_max = seconds("EVICTION_AFTER_S")?;
    let shutdown = CancellationToken::new();
    let ended = shutdown.clone();
    tokio::spawn(async move {
        let _ = tokio::signal::ctrl_c().await;
        ended.cancel();
    });
    meshgate_controllers::run(client, options, shutdown).await?;
    Ok(())
}

fn seconds(variable: &str) -> anyhow::Result<Option<Duration>> {
    match std::env::var(variable) {
        Err(_) => Ok(None),
        Ok(text) => Ok(Some(Duration::from_secs(
            text.parse().with_context(|| format!("{variable}={text}"))?,
        ))),
    }
}
