//! An engine under callgrind.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;

use anyhow::{Context as _, ensure};
use tempfile::TempDir;

use crate::Side;

/// A process that serves until it is stopped.
pub(crate) struct Engine {
    process: Child,
    pub(crate) address: SocketAddr,
    /// Where callgrind says what it counted.
    folder: TempDir,
    /// Records are read, so that nobody waits for them, and forgotten.
    records: JoinHandle<()>,
}

impl Engine {
    pub(crate) fn start(
        side: Side,
        origin: SocketAddr,
        certificate: &Path,
    ) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let program = std::env::current_exe().context("the path of this program")?;
        let mut process = Command::new("valgrind")
            .args(["--quiet", "--tool=callgrind", "--separate-threads=yes"])
            .arg(format!(
                "--callgrind-out-file={}",
                folder.path().join("counts").display()
            ))
            .arg(program)
            .arg(match side {
                Side::Edge => "serve",
                Side::EdgeTls => "serve-tls",
                Side::Outbound => "serve-outbound",
            })
            .arg(origin.to_string())
            .args((side == Side::EdgeTls).then_some(certificate))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("valgrind (Debian package valgrind)")?;
        let mut said = BufReader::new(process.stdout.take().context("the engine's output")?);
        let mut line = String::new();
        said.read_line(&mut line)?;
        let address = line.trim().parse();
        Ok(Self {
            address: address.with_context(|| format!("the engine said {line:?}"))?,
            records: std::thread::spawn(move || {
                // It ends with the process.
                let _ = std::io::copy(&mut said, &mut std::io::sink());
            }),
            process,
            folder,
        })
    }

    /// The instructions of the thread that served, from beginning to end. It is not the first: that one starts it, and
    /// may spend more, and each time another number, on gathering chance for TLS.
    pub(crate) fn stop(mut self) -> anyhow::Result<u64> {
        drop(self.process.stdin.take());
        let status = self.process.wait()?;
        ensure!(status.success(), "the engine ended with {status}");
        // It ended with its process.
        let _ = self.records.join();
        let mut most = 0;
        for entry in fs::read_dir(self.folder.path())? {
            let counts = fs::read_to_string(entry?.path())?;
            let said = |what| counts.lines().find_map(|line| line.strip_prefix(what));
            if said("thread: ") == Some("1") {
                continue;
            }
            let total: Option<&str> = said("totals: ");
            let total: u64 = total.map_or(Ok(0), |total| total.trim().parse())?;
            most = most.max(total);
        }
        ensure!(most > 0, "callgrind counted nothing");
        Ok(most)
    }
}
