//! A command in a running container: probes and hooks.

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use rustix::process::{PidfdFlags, pidfd_open};
use serde_json::{Value, json};

use super::files::{self, ShimConfig};
use super::{ShimError, chain};

/// The command could not be run.
pub(crate) const EXEC_FAILED: u8 = 126;
/// The command took too long and was killed.
pub(crate) const EXEC_TIMED_OUT: u8 = 124;

/// Runs `command` as the container's own program runs (user, environment, rights) and answers with its exit code.
/// Output goes where ours goes.
pub(super) fn exec(dir: &Path, timeout_ms: u64, command: &[String]) -> ExitCode {
    let deadline = Instant::now() + Duration::from_millis(timeout_ms);
    match start(dir, command) {
        Ok(pid) => ExitCode::from(wait(pid, deadline)),
        Err(error) => {
            use std::io::Write;
            let _ = writeln!(std::io::stderr(), "{}", chain(&error));
            ExitCode::from(EXEC_FAILED)
        }
    }
}

fn start(dir: &Path, command: &[String]) -> Result<Pid, ShimError> {
    let config = ShimConfig::read(dir).map_err(ShimError::at("reading the container"))?;
    let process = process(dir, command).map_err(ShimError::at("preparing the command"))?;
    let failed =
        |error: libcontainer::error::LibcontainerError| ShimError::Container(chain(&error));
    super::inherit(super::Inherited::ByPrograms)?;
    let result = ContainerBuilder::new(config.id.clone(), SyscallType::default())
        .with_root_path(dir.join(files::OCI_STATE))
        .map_err(failed)?
        .as_tenant()
        .with_process(Some(&process))
        .with_detach(true)
        .build()
        .map(|pid| Pid::from_raw(pid.as_raw()))
        .map_err(failed);
    let _ = std::fs::remove_file(process);
    result
}

/// The container's own process description with another command, as a file: that is how the runtime takes it.
fn process(dir: &Path, command: &[String]) -> std::io::Result<std::path::PathBuf> {
    let spec: Value = serde_json::from_slice(&std::fs::read(dir.join(files::SPEC))?)?;
    let mut process = spec.get("process").cloned().unwrap_or_default();
    process["args"] = json!(command);
    let path = dir.join(format!("exec-{}.json", std::process::id()));
    std::fs::write(&path, serde_json::to_vec(&process)?)?;
    Ok(path)
}

fn wait(pid: Pid, deadline: Instant) -> u8 {
    let mut timed_out = false;
    if let Some(process) = rustix::process::Pid::from_raw(pid.as_raw())
        && let Ok(fd) = pidfd_open(process, PidfdFlags::empty())
    {
        use std::os::fd::AsFd;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            let mut waits = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
            match poll(&mut waits, timeout) {
                Ok(0) if Instant::now() >= deadline => {
                    timed_out = true;
                    let _ = kill(pid, Signal::SIGKILL);
                    break;
                }
                Ok(1..) => break,
                Ok(_) | Err(_) => {}
            }
        }
    }
    let status = waitpid(pid, None);
    if timed_out {
        return EXEC_TIMED_OUT;
    }
    match status {
        Ok(WaitStatus::Exited(_, code)) => u8::try_from(code).unwrap_or(EXEC_FAILED),
        Ok(WaitStatus::Signaled(_, signal, _)) => 128 + u8::try_from(signal as i32).unwrap_or(0),
        _ => EXEC_FAILED,
    }
}
