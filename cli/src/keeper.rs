//! Holds a cluster: makes its namespaces, starts the supervisor as their first process, and clears control groups when
//! that has ended. It is the one process of a cluster that lives among the host's.

use std::fs::File;
use std::os::fd::RawFd;
use std::process::{Command, ExitCode};

use anyhow::{Context, bail};
use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Gid, Pid, Uid};

use crate::cluster::leftovers;
use crate::supervisor::spec::{Report, Spec};

/// The supervisor gets this long to end by itself.
const GRACE_S: u32 = 10;

pub(crate) fn run(spec: &str) -> anyhow::Result<ExitCode> {
    let spec = Spec::from_argument(spec)?;
    if spec.foreground {
        nix::sys::prctl::set_pdeathsig(Signal::SIGTERM)
            .context("cannot ask to end with the parent")?;
    }
    let signals = SigSet::from_iter([
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGCHLD,
        Signal::SIGALRM,
    ]);
    signals.thread_block().context("cannot block signals")?;
    match start(&spec) {
        Ok(supervisor) => {
            let code = wait(&signals, supervisor)?;
            leftovers::remove_cgroups(&spec.cgroup)?;
            Ok(code)
        }
        Err(error) => {
            Report::Failed(format!("{error:#}")).send(&mut report(spec.report)?);
            Err(error)
        }
    }
}

/// Opens the report pipe again: the descriptor itself stays for the supervisor.
fn report(descriptor: RawFd) -> anyhow::Result<File> {
    let path = format!("/proc/self/fd/{descriptor}");
    File::options()
        .write(true)
        .open(&path)
        .with_context(|| format!("cannot open {path}"))
}

fn start(spec: &Spec) -> anyhow::Result<Pid> {
    if spec.isolated() {
        isolate()?;
    }
    let child = Command::new("/proc/self/exe")
        .args(["supervisor", &spec.to_argument()])
        .spawn()
        .context("cannot start the supervisor")?;
    let pid = i32::try_from(child.id()).context("a process id beyond the kernel's")?;
    Ok(Pid::from_raw(pid))
}

/// New namespaces for what is started from now on; without root inside a user namespace of its own.
fn isolate() -> anyhow::Result<()> {
    let own = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS;
    let (uid, gid) = (Uid::effective(), Gid::effective());
    if uid.is_root() {
        return match unshare(own) {
            Err(Errno::EPERM) => bail!(
                "this root may not make namespaces (a container without CAP_SYS_ADMIN?): run it with that capability, \
                 or on the machine itself"
            ),
            other => other.context("cannot make the cluster's namespaces"),
        };
    }
    match unshare(own | CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWCGROUP) {
        Err(Errno::EPERM | Errno::EACCES | Errno::ENOSPC | Errno::EINVAL) => bail!(
            "user {uid} may not make user namespaces on this machine. Either run meshgate as root, or let users have \
             them: sysctl user.max_user_namespaces=10000, and where they exist kernel.unprivileged_userns_clone=1 and \
             kernel.apparmor_restrict_unprivileged_userns=0"
        ),
        other => other.context("cannot make the cluster's namespaces")?,
    }
    let map = |path: &str, text: String| {
        std::fs::write(path, text).with_context(|| format!("cannot write {path}"))
    };
    map("/proc/self/setgroups", "deny".to_owned())?;
    map("/proc/self/uid_map", format!("0 {uid} 1"))?;
    map("/proc/self/gid_map", format!("0 {gid} 1"))
}

fn wait(signals: &SigSet, supervisor: Pid) -> anyhow::Result<ExitCode> {
    loop {
        match signals.wait().context("cannot wait for signals")? {
            Signal::SIGCHLD => match waitpid(supervisor, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(_, code)) => {
                    return Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)));
                }
                Ok(WaitStatus::Signaled(_, signal, _)) => {
                    tracing::error!(%signal, "the supervisor was ended, and the cluster with it");
                    return Ok(ExitCode::FAILURE);
                }
                Ok(_) => {}
                Err(error) => return Err(error).context("cannot wait for the supervisor"),
            },
            Signal::SIGALRM => end(supervisor, Signal::SIGKILL),
            _ => {
                end(supervisor, Signal::SIGTERM);
                nix::unistd::alarm::set(GRACE_S);
            }
        }
    }
}

fn end(supervisor: Pid, signal: Signal) {
    if let Err(error) = kill(supervisor, signal) {
        tracing::debug!(%error, %signal, "the supervisor has ended already");
    }
}
