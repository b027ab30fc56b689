//! What stands behind all proxies: answers of fixed lengths, made before anybody asks, by a process of its own.

use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};

use anyhow::Context as _;
use meshgate_tests::origin::{self, Answers};
use tokio::net::TcpListener;

use super::peer::ended_with_us;

/// The argument that makes the program the origin.
pub(crate) const SUBCOMMAND: &str = "origin";
pub(crate) const SMALL: &str = "/1k";
pub(crate) const LARGE: &str = "/64k";
pub(crate) const SMALL_BYTES: usize = 1024;
pub(crate) const LARGE_BYTES: usize = 64 * 1024;

/// More than the buffers between an origin and a client hold.
pub(crate) const HUGE: &str = "/16m";
const HUGE_BYTES: usize = 16 * 1024 * 1024;

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
    let address = listener.local_addr()?;
    let mut out = io::stdout();
    writeln!(out, "{address}")?;
    out.flush()?;
    let answers = Answers::new(&[
        (SMALL, SMALL_BYTES),
        (LARGE, LARGE_BYTES),
        (HUGE, HUGE_BYTES),
    ]);
    origin::serve(listener, answers).await?;
    Ok(())
}
