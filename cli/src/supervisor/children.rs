//! The processes that a cluster consists of: started, waited for, started again.

use std::fs::OpenOptions;
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Context;
use meshgate_agent::net::namespace;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::cluster::bequeath;

/// First pause before a child that died is started again; doubled each time up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// A child that lived this long died of something new.
const SETTLED: Duration = Duration::from_secs(10);
/// The control plane gets this long to close its store.
const END_GRACE: Duration = Duration::from_secs(3);
/// How much of a log's end a message quotes.
const QUOTED_BYTES: i64 = 2_000;

/// How a child is started.
#[derive(Debug)]
pub(super) struct Child {
    name: String,
    arguments: Vec<String>,
    log: PathBuf,
    namespace: Option<PathBuf>,
    handed: Option<(&'static str, OwnedFd)>,
    ready: Ready,
    life: Life,
    pause: Duration,
}

/// Whether a child says that it is ready, and whether it has.
#[derive(Debug)]
enum Ready {
    Unasked,
    Wanted,
    Awaited(std::io::PipeReader),
    Said,
}

#[derive(Debug)]
enum Life {
    Runs { pid: Pid, since: Instant },
    Rests { until: Instant },
}

/// What the supervisor must know.
#[derive(Debug)]
pub(super) enum Outcome {
    /// A child said that it is ready.
    Ready,
    /// A child that never was ready has ended.
    FailedAtStart { name: String, reason: String },
    /// The supervisor was told to end, and the children have.
    Ended,
}

impl Child {
    pub(super) fn new(name: &str, arguments: Vec<String>, log: PathBuf) -> Child {
        Child {
            name: name.to_owned(),
            arguments,
            log,
            namespace: None,
            handed: None,
            ready: Ready::Unasked,
            life: Life::Rests {
                until: Instant::now(),
            },
            pause: PAUSE_MIN,
        }
    }

    /// In the network namespace kept at `path`.
    pub(super) fn inside(mut self, path: PathBuf) -> Child {
        self.namespace = Some(path);
        self
    }

    /// With a descriptor, named by an argument; also each time it is started again.
    pub(super) fn handing(mut self, argument: &'static str, descriptor: OwnedFd) -> Child {
        self.handed = Some((argument, descriptor));
        self
    }

    pub(super) fn says_when_ready(mut self) -> Child {
        self.ready = Ready::Wanted;
        self
    }

    fn start(&mut self) -> anyhow::Result<()> {
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log)
            .with_context(|| format!("cannot open the log {}", self.log.display()))?;
        let mut command = Command::new("/proc/self/exe");
        // Before its first statement the allocator would have touched huge pages.
        command.env("MIMALLOC_ALLOW_THP", "0");
        command
            .args(&self.arguments)
            .stdout(log.try_clone()?)
            .stderr(log);
        // Copies for the child alone: they are open across its start and closed here right after.
        let mut copies: Vec<OwnedFd> = Vec::new();
        if let Some((argument, descriptor)) = &self.handed {
            let copy = descriptor.try_clone()?;
            command.arg(format!("{argument}={}", bequeath(&copy)?));
            copies.push(copy);
        }
        if let Ready::Wanted | Ready::Awaited(_) = self.ready {
            let (reader, writer) = std::io::pipe()?;
            command.arg(format!("--ready-fd={}", bequeath(&writer)?));
            copies.push(writer.into());
            self.ready = Ready::Awaited(reader);
        }
        let spawned = match &self.namespace {
            Some(path) => namespace::enter(path, move || command.spawn())?,
            None => command.spawn(),
        };
        let child = spawned.with_context(|| format!("cannot start {}", self.name))?;
        let pid = Pid::from_raw(i32::try_from(child.id())?);
        tracing::info!(name = self.name, %pid, "started");
        self.life = Life::Runs {
            pid,
            since: Instant::now(),
        };
        Ok(())
    }

    fn ended(&mut self, how: &str) -> Option<Outcome> {
        let Life::Runs { since, .. } = self.life else {
            return None;
        };
        if let Ready::Awaited(_) = self.ready {
            return Some(Outcome::FailedAtStart {
                name: self.name.clone(),
                reason: format!(
                    "{how}; its log {} ends with:\n{}",
                    self.log.display(),
                    tail(&self.log)
                ),
            });
        }
        if since.elapsed() >= SETTLED {
            self.pause = PAUSE_MIN;
        }
        tracing::error!(
            name = self.name,
            how,
            pause_ms = self.pause.as_millis(),
            "ended; it is started again"
        );
        self.life = Life::Rests {
            until: Instant::now() + self.pause,
        };
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        None
    }
}

fn tail(log: &Path) -> String {
    let read = || -> std::io::Result<String> {
        let mut file = std::fs::File::open(log)?;
        let length = i64::try_from(file.metadata()?.len()).unwrap_or(i64::MAX);
        file.seek(SeekFrom::End(-length.min(QUOTED_BYTES)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).trim_end().to_owned())
    };
    read().unwrap_or_else(|error| format!("(cannot be read: {error})"))
}

/// All children, and the signals that tell of them.
#[derive(Debug)]
pub(super) struct Children {
    all: Vec<Child>,
    signals: SignalFd,
}

impl Children {
    pub(super) fn new() -> anyhow::Result<Children> {
        let mask = SigSet::from_iter([Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT]);
        mask.thread_block().context("cannot block signals")?;
        let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
            .context("cannot take signals as events")?;
        Ok(Children {
            all: Vec::new(),
            signals,
        })
    }

    pub(super) fn add(&mut self, mut child: Child) -> anyhow::Result<()> {
        child.start()?;
        self.all.push(child);
        Ok(())
    }

    /// Keeps the children running until there is something to tell.
    pub(super) fn wait(&mut self) -> anyhow::Result<Outcome> {
        loop {
            self.start_rested();
            let (signalled, ready) = self.poll()?;
            if let Some(index) = ready
                && let Some(outcome) = self.hear(index)
            {
                return Ok(outcome);
            }
            if !signalled {
                continue;
            }
            while let Some(signal) = self.signals.read_signal()? {
                if Signal::try_from(i32::try_from(signal.ssi_signo)?) != Ok(Signal::SIGCHLD) {
                    self.end();
                    return Ok(Outcome::Ended);
                }
            }
            if let Some(outcome) = self.reap()? {
                return Ok(outcome);
            }
        }
    }

    fn start_rested(&mut self) {
        for child in &mut self.all {
            let Life::Rests { until } = child.life else {
                continue;
            };
            if until > Instant::now() {
                continue;
            }
            if let Err(error) = child.start() {
                tracing::error!(
                    name = child.name,
                    error = format!("{error:#}"),
                    "cannot be started; tried again"
                );
                child.pause = (child.pause * 2).min(PAUSE_MAX);
                child.life = Life::Rests {
                    until: Instant::now() + child.pause,
                };
            }
        }
    }

    /// Waits for a signal, a child that says it is ready, or the end of a child's rest.
    fn poll(&self) -> anyhow::Result<(bool, Option<usize>)> {
        let rest = self.all.iter().filter_map(|child| match child.life {
            Life::Rests { until } => Some(until.saturating_duration_since(Instant::now())),
            Life::Runs { .. } => None,
        });
        let timeout = match rest.min() {
            Some(rest) => {
                PollTimeout::try_from(rest + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
            }
            None => PollTimeout::NONE,
        };
        let awaited: Vec<(usize, &std::io::PipeReader)> = self
            .all
            .iter()
            .enumerate()
            .filter_map(|(i, child)| match &child.ready {
                Ready::Awaited(reader) => Some((i, reader)),
                _ => None,
            })
            .collect();
        let mut wanted = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        wanted.extend(
            awaited
                .iter()
                .map(|(_, reader)| PollFd::new(reader.as_fd(), PollFlags::POLLIN)),
        );
        match poll(&mut wanted, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error).context("cannot wait for the children"),
        }
        let woken: Vec<bool> = wanted.iter().map(|p| p.any().unwrap_or(false)).collect();
        let ready = awaited
            .iter()
            .zip(&woken[1..])
            .find(|(_, woken)| **woken)
            .map(|((i, _), _)| *i);
        Ok((woken[0], ready))
    }

    /// A pipe that ends without a word belongs to a child that ends too; its end is told by the signal.
    fn hear(&mut self, index: usize) -> Option<Outcome> {
        let child = &mut self.all[index];
        let Ready::Awaited(reader) = &mut child.ready else {
            return None;
        };
        let mut byte = [0];
        match reader.read(&mut byte) {
            Ok(1) => {
                child.ready = Ready::Said;
                Some(Outcome::Ready)
            }
            _ => match self.reap() {
                Ok(outcome) => outcome,
                Err(error) => {
                    tracing::error!(
                        error = format!("{error:#}"),
                        "cannot ask for ended processes"
                    );
                    None
                }
            },
        }
    }

    fn reap(&mut self) -> anyhow::Result<Option<Outcome>> {
        loop {
            let status = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(None),
                Ok(status) => status,
                Err(error) => return Err(error).context("cannot ask for ended processes"),
            };
            let (pid, how) = match status {
                WaitStatus::Exited(pid, code) => (pid, format!("it ended with code {code}")),
                WaitStatus::Signaled(pid, signal, _) => (pid, format!("it was ended by {signal}")),
                _ => continue,
            };
            let own = self.all.iter_mut().find(
                |child| matches!(child.life, Life::Runs { pid: running, .. } if running == pid),
            );
            if let Some(outcome) = own.and_then(|child| child.ended(&how)) {
                return Ok(Some(outcome));
            }
        }
    }

    /// Lets the control plane close its store. All others are made to be killed.
    fn end(&mut self) {
        let deadline = Instant::now() + END_GRACE;
        let first = self.all.first().and_then(|child| match child.life {
            Life::Runs { pid, .. } => Some(pid),
            Life::Rests { .. } => None,
        });
        let Some(control) = first else { return };
        if kill(control, Signal::SIGTERM).is_err() {
            return; // it has ended already
        }
        while let Some(left) = deadline.checked_duration_since(Instant::now()) {
            match waitpid(control, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) => {}
                _ => return,
            }
            let mut wanted = [PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            if let Err(error) = poll(&mut wanted, timeout) {
                tracing::debug!(%error, "waiting for the control plane was interrupted");
            }
            while let Ok(Some(_)) = self.signals.read_signal() {}
        }
        tracing::warn!("the control plane did not end in time and is killed");
    }
}
