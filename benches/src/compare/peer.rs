//! The proxies that are compared: how each is started on the core that it has for itself, and ended.

use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::origin::SMALL;
use super::site::{HOST, Listens, Site};
use crate::{probe, process};

const PEERS_LOCK: &str = include_str!("../../peers/Cargo.lock");
pub(crate) const PROXY_CORE: usize = 0;
pub(crate) const LOAD_CORE: usize = 1;
/// On a machine with two cores the origin has that of the load.
const ORIGIN_CORE: usize = 2;
/// Until a proxy listens.
const STARTING: Duration = Duration::from_secs(30);
/// How long a proxy may take to end by itself.
const ENDING: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Meshgate,
    Nginx,
    Haproxy,
    Hyper,
    Pingora,
}

impl Kind {
    pub(crate) const ALL: [Self; 5] = [
        Self::Meshgate,
        Self::Nginx,
        Self::Haproxy,
        Self::Hyper,
        Self::Pingora,
    ];
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Meshgate => "Meshgate",
            Self::Nginx => "nginx",
            Self::Haproxy => "HAProxy",
            Self::Hyper => "hyper",
            Self::Pingora => "pingora",
        })
    }
}

/// The core of the origin; to be asked before this process keeps to one.
pub(crate) fn origin_core() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if cores > ORIGIN_CORE {
        ORIGIN_CORE
    } else {
        LOAD_CORE
    }
}

/// Where the programs are.
pub(crate) struct Programs {
    pub(crate) meshgate: PathBuf,
    /// The folder of those of our own, where they take part.
    peers: Option<PathBuf>,
}

impl Programs {
    /// As the script says that was called.
    pub(crate) fn of_environment() -> anyhow::Result<Self> {
        let path = |name| std::env::var_os(name).map(PathBuf::from);
        let meshgate = path("MESHGATE").context("MESHGATE is not set: use the script")?;
        let programs = Self {
            meshgate,
            peers: path("PEERS"),
        };
        let mut help = Command::new(&programs.meshgate);
        let help = said(help.args(["ingress", "--help"]))?;
        ensure!(
            help.contains("--from"),
            "{} knows no `ingress --from`",
            programs.meshgate.display()
        );
        Ok(programs)
    }

    fn peer(&self, name: &str) -> anyhow::Result<PathBuf> {
        let peers = self.peers.as_ref();
        let peers = peers.context("PEERS is not set: use benches/compare.sh")?;
        Ok(peers.join(name))
    }

    /// What it says of itself.
    pub(crate) fn version(&self, kind: Kind) -> anyhow::Result<String> {
        let text = match kind {
            Kind::Meshgate => said(Command::new(&self.meshgate).arg("--version"))?,
            Kind::Nginx => said(Command::new("nginx").arg("-v"))?,
            Kind::Haproxy => said(Command::new("haproxy").arg("-v"))?,
            Kind::Hyper => locked("hyper")?,
            Kind::Pingora => locked("pingora")?,
        };
        Ok(text.lines().next().unwrap_or_default().to_owned())
    }
}

/// A crate that the peers of our own are built with, and its version.
fn locked(name: &str) -> anyhow::Result<String> {
    let start = format!("name = \"{name}\"\nversion = \"");
    let (_, rest) = PEERS_LOCK.split_once(&start).context("peers/Cargo.lock")?;
    let version = rest.split('"').next().unwrap_or_default();
    Ok(format!("{name} {version}"))
}

/// Both outputs of a command that ends by itself.
pub(crate) fn said(command: &mut Command) -> anyhow::Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().context(name)?;
    let text = [output.stdout, output.stderr].concat();
    Ok(String::from_utf8_lossy(&text).trim().to_owned())
}

/// A running proxy; ended when dropped.
pub(crate) struct Peer {
    pub(crate) kind: Kind,
    pub(crate) listens: Listens,
    process: Child,
    log: PathBuf,
    errors: PathBuf,
    /// Where Meshgate tells its metrics.
    pub(crate) metrics: Option<SocketAddr>,
}

impl Peer {
    /// Returns when it answers.
    pub(crate) fn start(kind: Kind, programs: &Programs, site: &Site) -> anyhow::Result<Self> {
        Self::start_with(kind, programs, site, &[])
    }

    /// The same with more arguments.
    pub(crate) fn start_with(
        kind: Kind,
        programs: &Programs,
        site: &Site,
        more: &[String],
    ) -> anyhow::Result<Self> {
        let [http, https, ready, metrics] = free_addresses()?;
        let listens = Listens { http, https };
        let start = |program: &Path| ended_with_us(program.as_os_str(), Some(PROXY_CORE));
        let mut command = match kind {
            Kind::Meshgate => {
                let mut command = start(&programs.meshgate);
                command
                    .args(["ingress", "--workers", "1", "--access-log", "json"])
                    .args(["--http", &http.to_string(), "--https", &https.to_string()])
                    .args(["--ready", &ready.to_string()])
                    .args(["--metrics", &metrics.to_string()])
                    .arg("--control-socket")
                    .arg(site.path("meshgate.sock"))
                    .arg("--from")
                    .arg(site.manifests()?);
                command
            }
            Kind::Nginx => {
                let mut command = start(Path::new("nginx"));
                command.arg("-e").arg(site.path("nginx.error"));
                command.arg("-c").arg(site.nginx(listens)?);
                command
            }
            Kind::Haproxy => {
                let mut command = start(Path::new("haproxy"));
                command.arg("-db").arg("-f").arg(site.haproxy(listens)?);
                command
            }
            Kind::Hyper => own(start(&programs.peer("peer-hyper")?), listens, site)?,
            Kind::Pingora => own(start(&programs.peer("peer-pingora")?), listens, site)?,
        };
        // nginx writes its log by itself.
        let log = site.path(&format!("{kind}.log").to_lowercase());
        let errors = site.path(&format!("{kind}.stderr").to_lowercase());
        let output = match kind {
            Kind::Nginx => site.path("nginx.stdout"),
            _ => log.clone(),
        };
        let process = command
            .args(more)
            .current_dir(site.folder())
            .stdin(Stdio::null())
            .stdout(appending(&output)?)
            .stderr(appending(&errors)?)
            .spawn()
            .with_context(|| format!("starting {kind}"))?;
        let mut peer = Self {
            kind,
            listens,
            process,
            log,
            errors,
            metrics: (kind == Kind::Meshgate).then_some(metrics),
        };
        peer.await_answer()
            .with_context(|| format!("{kind}: {}", peer.complaint()))?;
        Ok(peer)
    }

    fn await_answer(&mut self) -> anyhow::Result<()> {
        let start = Instant::now();
        while TcpStream::connect(self.listens.http).is_err() {
            let ended = self.process.try_wait()?;
            if ended.is_some() || start.elapsed() > STARTING {
                bail!("nobody listens: {ended:?}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        probe::until(self.listens.http, HOST, SMALL, |answer| {
            answer.status == 200
        })
    }

    /// The process that was started. Others may be below it.
    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Of it and all below it.
    pub(crate) fn cpu(&self) -> anyhow::Result<Duration> {
        process::family(self.pid())?
            .into_iter()
            .map(process::cpu)
            .sum()
    }

    /// Of it and all below it, in KiB; pages that they share count once.
    pub(crate) fn memory_kib(&self) -> anyhow::Result<f64> {
        let family = process::family(self.pid())?.into_iter();
        let parts = family.map(|pid| Ok(process::memory(pid)?.proportional_kib as f64));
        parts.sum()
    }

    /// Empties the access log; the next line goes to its beginning.
    pub(crate) fn forget_log(&self) -> anyhow::Result<()> {
        let log = File::options().write(true).open(&self.log);
        log.and_then(|log| log.set_len(0)).context("the access log")
    }

    /// The end of what it wrote to standard error.
    pub(crate) fn complaint(&self) -> String {
        let text = fs::read_to_string(&self.errors).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(3)..].join("; ")
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        if let Ok(pid) = i32::try_from(self.pid()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        let start = Instant::now();
        while start.elapsed() < ENDING {
            if !matches!(self.process.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A peer of our own.
fn own(mut command: Command, listens: Listens, site: &Site) -> anyhow::Result<Command> {
    command
        .args(["--http", &listens.http.to_string()])
        .args(["--https", &listens.https.to_string()])
        .arg("--routes")
        .arg(site.routes()?)
        .arg("--certificate")
        .arg(site.path("certificate.pem"))
        .arg("--key")
        .arg(site.path("key.pem"));
    Ok(command)
}

/// A process that the kernel ends should this one end without doing it; on one core, if one is named.
pub(crate) fn ended_with_us(program: impl AsRef<OsStr>, core: Option<usize>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "TERM"]);
    if let Some(core) = core {
        command.args(["taskset", "--cpu-list", &core.to_string()]);
    }
    command.arg(program);
    command
}

/// So that it can be emptied while it is written.
fn appending(path: &Path) -> anyhow::Result<File> {
    let file = File::options().create(true).append(true).open(path);
    file.with_context(|| path.display().to_string())
}

/// Nobody uses them now.
fn free_addresses<const N: usize>() -> anyhow::Result<[SocketAddr; N]> {
    let listeners: Vec<TcpListener> = (0..N)
        .map(|_| TcpListener::bind("127.0.0.1:0"))
        .collect::<Result<_, _>>()?;
    let addresses = listeners.iter().map(TcpListener::local_addr);
    let addresses = addresses.collect::<Result<Vec<_>, _>>()?;
    addresses
        .try_into()
        .map_err(|_| anyhow::anyhow!("free addresses"))
}
