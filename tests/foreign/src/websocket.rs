//! The Autobahn cases as kosoku drives them, through edge and sidecar to a server that sends back what comes.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use futures::{SinkExt as _, StreamExt as _};
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use crate::Outcome;
use crate::edge::{Edge, HOST};
use crate::listen::listen;
use crate::sidecar::Sidecar;
use crate::tools;

/// Compression is between the ends: what is compressed is bytes to a proxy, and the server does not offer it.
const LEFT_OUT: [&str; 2] = ["12.*", "13.*"];
const PATIENCE: Duration = Duration::from_secs(900);
/// The largest message of the suite.
const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;

pub(crate) async fn run() -> anyhow::Result<Vec<Outcome>> {
    let server = Server::start().await?;
    let edge = Edge::start(server.address).await?;
    let sidecar = Sidecar::start(server.address).await?;
    let directly = verdicts(server.address).await?;
    let wrong = failed(&directly);
    ensure!(
        wrong.is_empty() && !directly.is_empty(),
        "without a proxy all cases must pass: {wrong:?}"
    );
    let mut outcomes = Vec::new();
    for (way, address) in [
        ("edge", edge.http),
        ("sidecar, inbound", sidecar.inbound),
        ("sidecar, outbound", sidecar.outbound),
        ("two sidecars", sidecar.both),
    ] {
        let found = verdicts(address).await?;
        let mut failed = failed(&found);
        let missing = directly.keys().filter(|case| !found.contains_key(*case));
        failed.extend(missing.map(|case| format!("{case}: no verdict")));
        outcomes.push(Outcome {
            suite: format!("WebSocket (Autobahn's cases), {way}"),
            passed: directly.len().saturating_sub(failed.len()),
            failed,
        });
    }
    Ok(outcomes)
}

/// As the suite writes it: of the exchange, and of the closing.
#[derive(Deserialize)]
struct Verdict {
    behavior: String,
    #[serde(rename = "behaviorClose")]
    behavior_close: String,
}

type Verdicts = BTreeMap<String, Verdict>;

async fn verdicts(address: SocketAddr) -> anyhow::Result<Verdicts> {
    let reports = tempfile::tempdir()?;
    let mut command = Command::new(tools::path("KOSOKU")?);
    command.arg("--outdir").arg(reports.path());
    for cases in LEFT_OUT {
        command.args(["--exclude", cases]);
    }
    command.arg(format!("{HOST}:{}", address.port()));
    let printed = tools::printed(command, PATIENCE).await?;
    let index = std::fs::read(reports.path().join("index.json"))
        .with_context(|| format!("kosoku wrote no report: {printed}"))?;
    // One agent, by the name it gives itself.
    let agents: BTreeMap<String, Verdicts> = serde_json::from_slice(&index)?;
    Ok(agents.into_values().flatten().collect())
}

fn failed(verdicts: &Verdicts) -> Vec<String> {
    let is_good = |verdict: &str| matches!(verdict, "OK" | "NON-STRICT" | "INFORMATIONAL");
    verdicts
        .iter()
        .filter(|(_, found)| !is_good(&found.behavior) || !is_good(&found.behavior_close))
        .map(|(case, found)| {
            format!(
                "{case}: {}, closing {}",
                found.behavior, found.behavior_close
            )
        })
        .collect()
}

/// Ends when dropped.
struct Server {
    address: SocketAddr,
    _tasks: JoinSet<()>,
}

impl Server {
    async fn start() -> anyhow::Result<Self> {
        // The suite breaks off as it likes.
        let served = listen(|stream| async move { echo(stream).await.unwrap_or_default() });
        let (address, tasks) = served.await?;
        Ok(Self {
            address,
            _tasks: tasks,
        })
    }
}

async fn echo(stream: TcpStream) -> Result<(), tokio_tungstenite::tungstenite::Error> {
    let limits = WebSocketConfig::default()
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX));
    let mut socket = tokio_tungstenite::accept_async_with_config(stream, Some(limits)).await?;
    while let Some(message) = socket.next().await {
        // The others are answered by the library.
        if let message @ (Message::Text(_) | Message::Binary(_)) = message? {
            socket.send(message).await?;
        }
    }
    Ok(())
}
