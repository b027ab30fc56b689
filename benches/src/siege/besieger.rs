//! The attackers, a process of their own: who behaves must not wait for a thread of theirs, nor for a turn on the core.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use meshgate_tests::process::claim_descriptors;
use meshgate_tests::siege::{Attack, Force, Siege, Target};

use crate::compare::origin::HUGE;
use crate::compare::peer::{LOAD_CORE, ended_with_us};
use crate::compare::site::{HOST, Listens};

/// The argument that makes the program the besieger.
pub(crate) const SUBCOMMAND: &str = "besiege";
/// What it says when all of it stands.
const STANDING: &str = "standing";
/// Until then; a handshake takes a millisecond or two of what the others leave.
const GATHERING: Duration = Duration::from_secs(120);
/// What one address is usually allowed.
const PER_CLIENT: usize = 256;

/// How many of each kind, besides the idle ones.
const FORCE: [(Attack, usize); 11] = [
    (Attack::SlowHead, 400),
    (Attack::SlowHandshake, 200),
    (Attack::SlowBody, 200),
    (Attack::SlowReader, 100),
    (Attack::RapidReset, 4),
    (Attack::Ping, 4),
    (Attack::Settings, 4),
    (Attack::Continuation, 4),
    (Attack::EmptyData, 4),
    (Attack::Handshake, 25),
    (Attack::OneAddress, PER_CLIENT + 44),
];

/// Who comes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Besiege {
    ByAll,
    ByIdle,
}

/// The argument that keeps all others away.
const BY_IDLE: &str = "idle-only";

/// The running process; ended when dropped.
pub(super) struct Besieger {
    process: Child,
    orders: Option<ChildStdin>,
    says: BufReader<ChildStdout>,
}

impl Besieger {
    /// Returns when everybody is where they should be.
    pub(super) fn lay(at: &Listens, idle: u64, by: Besiege) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("the path of this program")?;
        let mut process = ended_with_us(Path::new("chrt"), Some(LOAD_CORE))
            .args(["--idle", "0"])
            .arg(program)
            .arg(SUBCOMMAND)
            .args([at.http.to_string(), at.https.to_string(), idle.to_string()])
            .args((by == Besiege::ByIdle).then_some(BY_IDLE))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("the besieger (Debian package util-linux)")?;
        let says = process.stdout.take().context("its output")?;
        let mut besieger = Self {
            orders: process.stdin.take(),
            process,
            says: BufReader::new(says),
        };
        let mut line = String::new();
        besieger.says.read_line(&mut line)?;
        ensure!(line.trim() == STANDING, "the besieger said {line:?}");
        Ok(besieger)
    }

    /// Returns when all its connections are closed; a line for each kind of attack.
    pub(super) fn lift(mut self) -> anyhow::Result<Vec<String>> {
        // The end of its orders is the order to end.
        drop(self.orders.take());
        let mut text = String::new();
        self.says.read_to_string(&mut text)?;
        let ended = self.process.wait()?;
        ensure!(ended.success(), "the besieger failed: {ended}");
        Ok(text.lines().map(str::to_owned).collect())
    }
}

impl Drop for Besieger {
    fn drop(&mut self) {
        // Has ended already, mostly.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The process itself.
pub(crate) fn run(mut arguments: impl Iterator<Item = String>) -> anyhow::Result<()> {
    let mut next = || arguments.next().context("HTTP HTTPS IDLE");
    let (http, https): (SocketAddr, SocketAddr) = (next()?.parse()?, next()?.parse()?);
    let idle: usize = next()?.parse()?;
    let by_idle = arguments.next().is_some_and(|word| word == BY_IDLE);
    claim_descriptors();
    let target = Target {
        http,
        https,
        host: HOST.to_owned(),
        large: HUGE.to_owned(),
    };
    let mut force = match by_idle {
        true => Force::new(),
        false => Force::from(FORCE),
    };
    force.insert(Attack::Idle, idle);
    let siege = Siege::lay(&target, &force);
    gather(&siege, &force)?;
    let mut out = io::stdout();
    writeln!(out, "{STANDING}")?;
    out.flush()?;
    let (before, began) = (tallies(&siege, &force), Instant::now());
    io::stdin().read_to_end(&mut Vec::new())?;
    let seconds = began.elapsed().as_secs_f64();
    let after = tallies(&siege, &force);
    let standing = siege.tally(Attack::Idle).standing;
    ensure!(
        standing >= idle / 100 * 99,
        "of {idle} idle connections {standing} stand in the end"
    );
    siege.lift();
    for ((kind, (opened, closed)), (_, (opened_before, closed_before))) in after.iter().zip(&before)
    {
        let a_second = |more: usize, less: usize| (more - less) as f64 / seconds;
        writeln!(
            out,
            "| {kind} | {} | {:.0} | {:.0} |",
            force[kind],
            a_second(*opened, *opened_before),
            a_second(*closed, *closed_before)
        )?;
    }
    Ok(())
}

/// Connections that were opened, and closed by the server, so far.
fn tallies(siege: &Siege, force: &Force) -> Vec<(Attack, (usize, usize))> {
    let each = force.keys().map(|kind| {
        let tally = siege.tally(*kind);
        (*kind, (tally.opened, tally.closed))
    });
    each.collect()
}

/// Waits until the idle stand, which are most, and the slow.
fn gather(siege: &Siege, force: &Force) -> anyhow::Result<()> {
    let began = Instant::now();
    for kind in [Attack::Idle, Attack::SlowBody, Attack::SlowReader] {
        let count = force.get(&kind).copied().unwrap_or_default();
        while siege.tally(kind).standing < count {
            if began.elapsed() > GATHERING {
                bail!("{kind}: {}", siege.tally(kind));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    Ok(())
}
