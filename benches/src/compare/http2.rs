//! A client's connection with HTTP/2 in TLS.

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use h2::client::SendRequest;
use h2::{Ping, PingPong};
use http::Request;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use super::client::PATIENCE;

/// Closed when dropped.
pub(crate) struct Http2Connection {
    sender: SendRequest<Bytes>,
    ping: PingPong,
    /// One task, which reads and writes.
    _driver: JoinSet<()>,
}

impl Http2Connection {
    pub(crate) async fn open(stream: TlsStream<TcpStream>) -> anyhow::Result<Self> {
        let agreed = stream.get_ref().1.alpn_protocol();
        ensure!(agreed == Some(&b"h2"[..]), "the proxy chose {agreed:?}");
        let handshake = timeout(PATIENCE, h2::client::handshake(stream)).await;
        let (sender, mut connection) = handshake.context("no HTTP/2 in time")??;
        let ping = connection.ping_pong().context("taken once")?;
        let mut driver = JoinSet::new();
        // Its errors reach the requests, and pings.
        driver.spawn(async move { connection.await.unwrap_or_default() });
        Ok(Self {
            sender,
            ping,
            _driver: driver,
        })
    }

    /// Asks and reads the whole answer.
    pub(crate) async fn ask(&mut self, host: &str, path: &str) -> anyhow::Result<()> {
        let exchange = exchange(self.sender.clone(), host, path);
        timeout(PATIENCE, exchange).await.context("no answer")?
    }

    /// Whether the other side still answers.
    pub(crate) async fn is_open(&mut self) -> bool {
        let answered = timeout(PATIENCE, self.ping.ping(Ping::opaque())).await;
        matches!(answered, Ok(Ok(_)))
    }
}

async fn exchange(sender: SendRequest<Bytes>, host: &str, path: &str) -> anyhow::Result<()> {
    let request = Request::get(format!("https://{host}{path}")).body(())?;
    let (answer, _) = sender.ready().await?.send_request(request, true)?;
    let (head, mut body) = answer.await?.into_parts();
    ensure!(head.status == 200, "an answer with status {}", head.status);
    while let Some(data) = body.data().await {
        let length = data?.len();
        body.flow_control().release_capacity(length)?;
    }
    Ok(())
}
