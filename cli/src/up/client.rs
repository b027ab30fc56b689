//! One request to the edge: enough to see that it answers.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// An answer that takes longer is none.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The status of `GET /` at `edge` for `host`.
pub(super) async fn status(edge: SocketAddr, host: &str) -> anyhow::Result<u16> {
    let exchange = async {
        let mut stream = TcpStream::connect(edge).await?;
        let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut head = [0; 12];
        stream.read_exact(&mut head).await?;
        std::io::Result::Ok(head)
    };
    let head = tokio::time::timeout(TIMEOUT, exchange)
        .await
        .with_context(|| format!("the edge at {edge} does not answer"))?
        .with_context(|| format!("the edge at {edge}"))?;
    std::str::from_utf8(&head[9..])
        .ok()
        .and_then(|code| code.parse().ok())
        .with_context(|| format!("the edge at {edge} answers no HTTP"))
}
