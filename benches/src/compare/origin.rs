//! What stands behind all proxies: answers of two lengths, made before anybody asks, by a process of its own.

use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::peer::ended_with_us;

/// The argument that makes the program the origin.
pub(crate) const SUBCOMMAND: &str = "origin";
pub(crate) const SMALL: &str = "/1k";
pub(crate) const LARGE: &str = "/64k";
pub(crate) const SMALL_BYTES: usize = 1024;
pub(crate) const LARGE_BYTES: usize = 64 * 1024;

/// No request head that a proxy makes of ours is longer.
const HEAD_BYTES_MAX: usize = 8 * 1024;

/// The running process; ended when dropped.
pub(crate) struct Origin {
    process: Child,
    pub(crate) address: SocketAddr,
}

impl Origin {
    /// On a free port of this machine.
    pub(crate) fn start(core: usize) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("the path of this program")?;
        let command = ended_with_us(&program, Some(core));
        Self::spawn(command, (Ipv4Addr::LOCALHOST, 0).into())
    }

    /// In the network of a process.
    pub(crate) fn start_in(
        network_of: u32,
        address: SocketAddr,
        core: usize,
    ) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("the path of this program")?;
        let mut command = ended_with_us("nsenter", Some(core));
        command
            .args(["--target", &network_of.to_string(), "--net"])
            .arg(program);
        Self::spawn(command, address)
    }

    fn spawn(mut command: Command, address: SocketAddr) -> anyhow::Result<Self> {
        let mut process = command
            .args([SUBCOMMAND, &address.to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .context("the origin (Debian package util-linux)")?;
        let mut line = String::new();
        let said = process.stdout.take().context("the origin's output")?;
        io::BufRead::read_line(&mut io::BufReader::new(said), &mut line)?;
        let address = line.trim().parse();
        Ok(Self {
            process,
            address: address.with_context(|| format!("the origin said {line:?}"))?,
        })
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Serves for ever, at an address that it prints first.
pub(crate) fn run(mut arguments: impl Iterator<Item = String>) -> anyhow::Result<()> {
    let address = arguments.next().context("the origin is told an address")?;
    let address = address.parse().context("an address")?;
    tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .context("a runtime")?
        .block_on(serve(address))
}

async fn serve(address: SocketAddr) -> anyhow::Result<()> {
    let listener = TcpListener::bind(address).await?;
    let mut out = io::stdout();
    writeln!(out, "{}", listener.local_addr()?)?;
    out.flush()?;
    let answers = Arc::new(Answers {
        small: answer(SMALL_BYTES),
        large: answer(LARGE_BYTES),
    });
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let answers = answers.clone();
        // Whoever hangs up ends only this connection.
        connections.spawn(async move { answers.give(stream).await.unwrap_or_default() });
        while connections.try_join_next().is_some() {}
    }
}

struct Answers {
    small: Vec<u8>,
    large: Vec<u8>,
}

fn answer(length: usize) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\ncontent-length: {length}\r\n\r\n"
    );
    let mut answer = head.into_bytes();
    answer.resize(answer.len() + length, b'x');
    answer
}

impl Answers {
    /// Requests have no bodies, and are not sent before the last one is answered.
    async fn give(&self, mut stream: TcpStream) -> io::Result<()> {
        let mut head = Vec::with_capacity(HEAD_BYTES_MAX);
        loop {
            if stream.read_buf(&mut head).await? == 0 {
                return Ok(());
            }
            if head.ends_with(b"\r\n\r\n") {
                let is_large = head.starts_with(b"GET /64k ");
                let answer = if is_large { &self.large } else { &self.small };
                stream.write_all(answer).await?;
                head.clear();
            } else if head.len() >= HEAD_BYTES_MAX {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
    }
}
