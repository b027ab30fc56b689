//! From the container's start to its end: output into the log, signals passed on, the exit status written down.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use jiff::Timestamp;
use libcontainer::container::Container;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::console::Console;
use super::files::{Exit, ShimConfig, State};
use super::log::Stream;
use super::oom;

/// The agent's word for "now, without asking": becomes SIGKILL.
pub(crate) const KILL: Signal = Signal::SIGUSR1;

fn signals() -> SigSet {
    let mut set = SigSet::empty();
    for signal in [
        Signal::SIGCHLD,
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGHUP,
        KILL,
    ] {
        set.add(signal);
    }
    set
}

/// From now on signals wait to be read. Not before the container's process exists: it would inherit the mask.
pub(super) fn block_signals() -> io::Result<()> {
    Ok(signals().thread_block()?)
}

/// Stays until the container has ended, then writes how and cleans up.
pub(super) fn until_exit(
    dir: &Path,
    config: &ShimConfig,
    mut container: Container,
    mut console: Console,
    state: &State,
) {
    let pid = Pid::from_raw(state.pid.unwrap_or_default());
    let status =
        match SignalFd::with_flags(&signals(), SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK) {
            Ok(queue) => attend(&queue, &mut console, pid, config.stop_signal),
            // Without signals nothing can be passed on, but the end can still be waited for.
            Err(_) => waitpid(pid, None).ok(),
        };
    console.finish();
    let (code, signal) = match status {
        Some(WaitStatus::Exited(_, code)) => (code, None),
        Some(WaitStatus::Signaled(_, signal, _)) => (128 + signal as i32, Some(signal as i32)),
        _ => (255, None),
    };
    let exit = Exit {
        code,
        signal,
        oom_killed: oom::was_killed(&config.cgroup),
        started_at: state.started_at,
        finished_at: Timestamp::now(),
    };
    // The agent takes a shim that left no status for one that was killed, so a failure here is not silent.
    if let Err(error) = exit.write(dir) {
        complain(&format!("cannot write the exit status: {error}"));
    }
    if let Err(error) = container.delete(true) {
        complain(&format!("cannot remove the control group: {error}"));
    }
}

fn complain(text: &str) {
    use std::io::Write;
    let _ = writeln!(io::stderr(), "{text}");
}

/// Serves streams and signals until the container's first process has ended.
fn attend(
    queue: &SignalFd,
    console: &mut Console,
    pid: Pid,
    stop_signal: i32,
) -> Option<WaitStatus> {
    // It may have ended before signals were blocked.
    let mut ended = reap(pid);
    while ended.is_none() {
        let ready = wait(queue, console);
        for stream in [Stream::Stdout, Stream::Stderr] {
            if ready.contains(&Ready::Output(stream)) {
                console.take(stream);
            }
        }
        if ready.contains(&Ready::Signal) {
            while let Ok(Some(info)) = queue.read_signal() {
                pass_on(info.ssi_signo, pid, stop_signal);
            }
            ended = reap(pid);
        }
    }
    ended
}

#[derive(Debug, PartialEq, Eq)]
enum Ready {
    Signal,
    Output(Stream),
}

fn wait(queue: &SignalFd, console: &Console) -> Vec<Ready> {
    let mut sources = vec![Ready::Signal];
    let mut waits = vec![PollFd::new(queue.as_fd(), PollFlags::POLLIN)];
    for (stream, fd) in console.open_streams() {
        sources.push(Ready::Output(stream));
        waits.push(PollFd::new(fd, PollFlags::POLLIN));
    }
    match poll(&mut waits, PollTimeout::NONE) {
        Ok(_) => {}
        Err(Errno::EINTR) => return Vec::new(),
        // Nothing to wait with: look at everything.
        Err(_) => return sources,
    }
    let happened: Vec<bool> = waits
        .iter()
        .map(|wait| wait.revents().is_some_and(|events| !events.is_empty()))
        .collect();
    sources
        .into_iter()
        .zip(happened)
        .filter_map(|(source, happened)| happened.then_some(source))
        .collect()
}

fn pass_on(signal: u32, pid: Pid, stop_signal: i32) {
    let signal = i32::try_from(signal)
        .ok()
        .and_then(|n| Signal::try_from(n).ok());
    match signal {
        Some(Signal::SIGTERM | Signal::SIGINT) => {
            let _ = send(pid, stop_signal);
        }
        Some(KILL) => {
            let _ = kill(pid, Signal::SIGKILL);
        }
        _ => {}
    }
}

/// Images may name any signal; what is none of the usual ones becomes SIGTERM.
fn send(pid: Pid, signal: i32) -> io::Result<()> {
    let (Some(pid), Some(signal)) = (
        rustix::process::Pid::from_raw(pid.as_raw()),
        rustix::process::Signal::from_named_raw(signal),
    ) else {
        return Ok(kill(pid, Signal::SIGTERM)?);
    };
    Ok(rustix::process::kill_process(pid, signal)?)
}

/// Collects every child that has ended; the container's own is the answer.
fn reap(pid: Pid) -> Option<WaitStatus> {
    let mut ended = None;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) | Err(_) => return ended,
            Ok(status) if status.pid() == Some(pid) => ended = Some(status),
            Ok(_) => {}
        }
    }
}
