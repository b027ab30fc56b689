//! A running container: a handle on its shim.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use jiff::Timestamp;
use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde_json::Value;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::Command;

use crate::shim::files::{self, Exit, Report, ShimConfig, State};
use crate::sys;

/// Longest time to make a container. Mounts of a hanging file system are the usual reason for more.
const START_TIMEOUT: Duration = Duration::from_secs(120);
/// Kept of a command's output, in bytes: as much as an event can show.
const OUTPUT_BYTES_MAX: u64 = 10 << 10;
/// Exit code where nobody could learn the real one.
const UNKNOWN_CODE: i32 = 137;

/// Why a container did not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error("{step}")]
    Step {
        step: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("{0}")]
    Shim(String),
}

impl StartError {
    fn at(step: &'static str) -> impl FnOnce(io::Error) -> StartError {
        move |source| StartError::Step { step, source }
    }
}

/// A container whose shim lives.
#[derive(Debug)]
pub(crate) struct Running {
    /// The container's id.
    pub(crate) id: String,
    /// When its program started.
    pub(crate) started_at: Timestamp,
    dir: PathBuf,
    shim: AsyncFd<OwnedFd>,
}

/// What a new agent finds in a container's folder.
#[derive(Debug)]
pub(crate) enum Adopted {
    /// It runs.
    Running(Running),
    /// It ended, with its status.
    Ended(Exit),
    /// It is gone and left nothing: the machine restarted, or the shim was killed.
    Lost,
}

/// Starts the container described by `config` and `spec` with its files in `dir`.
pub(crate) async fn start(
    binary: &Path,
    dir: &Path,
    config: &ShimConfig,
    spec: &Value,
) -> Result<Running, StartError> {
    fs::create_dir_all(dir).map_err(StartError::at("creating the container's folder"))?;
    files::write(dir, files::SPEC, spec)
        .and_then(|()| config.write(dir))
        .map_err(StartError::at("writing the container's configuration"))?;
    let errors = File::create(dir.join(files::SHIM_ERRORS))
        .map_err(StartError::at("creating the shim's error file"))?;
    let mut child = Command::new(binary)
        .args(["shim", "run"])
        .arg(dir)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(errors)
        // Of its own, so that nobody's Ctrl-C meant for the agent ends it.
        .process_group(0)
        .spawn()
        .map_err(StartError::at("starting the shim"))?;
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
    // The child is not waited for yet, so the number is still its own.
    let shim = pid.map(open_process);
    let Some(stdout) = child.stdout.take() else {
        return Err(StartError::Shim("the shim has no output".to_owned()));
    };
    let report = tokio::time::timeout(START_TIMEOUT, first_line(stdout)).await;
    // The runtime collects the child when it ends; we learn of that through its descriptor.
    drop(child);
    let line = match report {
        Ok(line) => line.map_err(StartError::at("reading from the shim"))?,
        Err(_) => {
            if let Some(Ok(shim)) = &shim {
                let _ = pidfd_send_signal(shim, Signal::KILL);
            }
            return Err(StartError::Shim(format!(
                "the container was not ready within {} s",
                START_TIMEOUT.as_secs()
            )));
        }
    };
    let state = match serde_json::from_str(&line) {
        Ok(Report::Started(state)) => state,
        Ok(Report::Failed(why)) => return Err(StartError::Shim(why)),
        Err(_) => return Err(StartError::Shim(shim_died(dir))),
    };
    let shim = shim
        .unwrap_or_else(|| Err(io::ErrorKind::NotFound.into()))
        .map_err(StartError::at("watching the shim"))?;
    Running::new(config.id.clone(), dir, &state, shim).map_err(StartError::at("watching the shim"))
}

async fn first_line(stdout: tokio::process::ChildStdout) -> io::Result<String> {
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line).await?;
    Ok(line)
}

fn shim_died(dir: &Path) -> String {
    let said = fs::read_to_string(dir.join(files::SHIM_ERRORS)).unwrap_or_default();
    match said.trim() {
        "" => "the shim died before the container started".to_owned(),
        said => format!("the shim died before the container started: {said}"),
    }
}

fn open_process(pid: i32) -> io::Result<OwnedFd> {
    let pid = rustix::process::Pid::from_raw(pid).ok_or(io::ErrorKind::NotFound)?;
    Ok(pidfd_open(pid, PidfdFlags::empty())?)
}

/// Finds out what became of a container started by an earlier agent.
pub(crate) fn adopt(dir: &Path, id: &str) -> Adopted {
    if let Ok(state) = State::read(dir)
        && let Some(shim) = open_known(state.shim_pid, state.shim_started)
    {
        match state.pid {
            Some(_) => {
                if let Ok(running) = Running::new(id.to_owned(), dir, &state, shim) {
                    return Adopted::Running(running);
                }
            }
            // Its agent died while it was being made: nobody waits for it any more.
            None => {
                let _ = pidfd_send_signal(shim, Signal::KILL);
            }
        }
    }
    match Exit::read(dir) {
        Ok(exit) => Adopted::Ended(exit),
        Err(_) => {
            kill_orphan(dir);
            Adopted::Lost
        }
    }
}

/// A process, if it is still the one that started then.
fn open_known(pid: i32, started: u64) -> Option<OwnedFd> {
    let process = open_process(pid).ok()?;
    // Looked at after opening: if the number was reused before, the time tells; after, the descriptor does.
    (files::start_ticks(pid).ok()? == started).then_some(process)
}

/// A shim that was killed leaves its container behind: it must not go on unseen.
fn kill_orphan(dir: &Path) {
    let Ok(state) = State::read(dir) else { return };
    let Some(pid) = state.pid else { return };
    let Ok(process) = open_process(pid) else {
        return;
    };
    // The program started after its shim did; anything older or much younger is somebody else's process.
    let namespaced = fs::read_link(format!("/proc/{pid}/ns/pid")).ok()
        != fs::read_link("/proc/self/ns/pid").ok();
    if namespaced && files::start_ticks(pid).is_ok_and(|ticks| ticks >= state.shim_started) {
        let _ = pidfd_send_signal(process, Signal::KILL);
    }
}

impl Running {
    fn new(id: String, dir: &Path, state: &State, shim: OwnedFd) -> io::Result<Running> {
        Ok(Running {
            id,
            started_at: state.started_at,
            dir: dir.to_owned(),
            shim: sys::readable(shim)?,
        })
    }

    /// Where its files are.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Waits for its end.
    pub(crate) async fn exited(&self) -> Exit {
        // A process descriptor is readable once the process has ended, and stays so.
        let _ = self.shim.readable().await;
        Exit::read(&self.dir).unwrap_or_else(|_| {
            kill_orphan(&self.dir);
            Exit {
                code: UNKNOWN_CODE,
                signal: Some(9),
                oom_killed: false,
                started_at: self.started_at,
                finished_at: Timestamp::now(),
            }
        })
    }

    /// Asks it to end.
    pub(crate) fn stop(&self) {
        let _ = pidfd_send_signal(self.shim.get_ref().as_fd(), Signal::TERM);
    }

    /// Ends it.
    pub(crate) fn kill(&self) {
        let _ = pidfd_send_signal(self.shim.get_ref().as_fd(), Signal::USR1);
    }
}

/// Runs a command inside the container in `dir`: exit code and output.
pub(crate) async fn start_exec(
    binary: &Path,
    dir: &Path,
    command: &[String],
    timeout: Duration,
) -> io::Result<(i32, String)> {
    let mut child = Command::new(binary)
        .args(["shim", "exec"])
        .arg(dir)
        .arg(timeout.as_millis().to_string())
        .args(command)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let stdout = child.stdout.take().map(read_some);
    let stderr = child.stderr.take().map(read_some);
    let output = async {
        let (stdout, stderr) = futures::join!(
            async {
                futures::future::OptionFuture::from(stdout)
                    .await
                    .unwrap_or_default()
            },
            async {
                futures::future::OptionFuture::from(stderr)
                    .await
                    .unwrap_or_default()
            },
        );
        stdout + &stderr
    };
    // The command may leave children that keep the pipes open: its own end is what counts.
    let (status, output) = {
        let mut output = std::pin::pin!(output);
        tokio::select! {
            text = &mut output => (child.wait().await?, text),
            status = child.wait() => {
                let status = status?;
                let grace = Duration::from_millis(100);
                (status, tokio::time::timeout(grace, output).await.unwrap_or_default())
            }
        }
    };
    Ok((status.code().unwrap_or(UNKNOWN_CODE), output))
}

/// The beginning of the output; the rest is read and dropped, so that the command is not held up.
async fn read_some(mut pipe: impl tokio::io::AsyncRead + Unpin) -> String {
    let mut bytes = Vec::new();
    let _ = (&mut pipe)
        .take(OUTPUT_BYTES_MAX)
        .read_to_end(&mut bytes)
        .await;
    let _ = tokio::io::copy(&mut pipe, &mut tokio::io::sink()).await;
    String::from_utf8_lossy(&bytes).into_owned()
}
