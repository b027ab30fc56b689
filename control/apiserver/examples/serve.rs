//! An API server alone, for trying clients against it: `cargo run -p meshgate-apiserver --example serve -- DIR [PORT]`.
//!
//! Makes keys and a kubeconfig in DIR and serves on 127.0.0.1 until Ctrl-C.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;

use anyhow::Context as _;
use meshgate_apiserver::{Options, start};
use meshgate_certs::cluster::{ClusterPki, ClusterPkiOptions};
use meshgate_store::Store;
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::INFO)
        .with_writer(std::io::stderr)
        .init();
    let mut arguments = std::env::args().skip(1);
    let dir: PathBuf = arguments.next().context("usage: serve DIR [PORT]")?.into();
    let port = arguments
        .next()
        .map_or(Ok(6443), |port| port.parse())
        .context("PORT must be a number")?;
    std::fs::create_dir_all(&dir)?;
    let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
    let advertise = listener.local_addr()?;
    let url = format!("https://{advertise}");
    let pki = ClusterPki::ensure(
        &dir,
        &ClusterPkiOptions {
            api_addresses: vec![advertise.ip()],
            api_names: Vec::new(),
            api_url_host: url.clone(),
            api_url_inside: url,
            cluster_name: "serve".into(),
            nodes: Vec::new(),
        },
    )?;
    let store = Store::open(&dir.join("store.redb"))?;
    let shutdown = CancellationToken::new();
    let options = Options {
        store,
        pki,
        listeners: vec![listener],
        advertise,
        service_cidr: (Ipv4Addr::new(10, 96, 0, 0), 16),
    };
    let running = start(options, shutdown.clone()).await?;
    tracing::info!(kubeconfig = %dir.join("kubeconfig").display(), %advertise, "serving");
    tokio::signal::ctrl_c().await?;
    shutdown.cancel();
    running.wait().await;
    Ok(())
}
