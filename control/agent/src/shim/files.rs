//! What agent and shim tell each other, as files in the container's folder.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Written by the agent before the shim starts.
const CONFIG: &str = "shim.json";
/// The OCI runtime configuration, written by the agent.
pub(crate) const SPEC: &str = "config.json";
/// Written by the shim: who it is and whom it watches.
const STATE: &str = "state.json";
/// Written by the shim as its last act.
const EXIT: &str = "exit.json";
/// Folder of the OCI runtime.
pub(crate) const OCI_STATE: &str = "oci";
/// Where the root file system is mounted, in the shim's own mount namespace only.
pub(crate) const ROOTFS: &str = "rootfs";
/// What the shim says when something is wrong with itself.
pub(crate) const SHIM_ERRORS: &str = "shim.err";

/// What the shim must know besides the OCI configuration.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ShimConfig {
    /// The container's id.
    pub(crate) id: String,
    /// Folder of all layers.
    pub(crate) layers_dir: PathBuf,
    /// Names in it, lowest first.
    pub(crate) layers: Vec<String>,
    /// Holds what the container writes: `upper` and `work`.
    pub(crate) writable: PathBuf,
    /// The log file; rotated ones get a suffix.
    pub(crate) log: PathBuf,
    /// Number of the signal that asks the container to end.
    pub(crate) stop_signal: i32,
    /// The container's control group from each hierarchy's root.
    pub(crate) cgroup: String,
    /// Keep the container's standard input open, though nobody writes to it.
    pub(crate) stdin: bool,
}

/// Processes of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    /// The shim.
    pub(crate) shim_pid: i32,
    /// When the kernel started it, in clock ticks since boot: tells it from a later process of the same number.
    pub(crate) shim_started: u64,
    /// The container's first process; absent while it is being made.
    pub(crate) pid: Option<i32>,
    /// When the container's program started.
    pub(crate) started_at: Timestamp,
}

/// How a container ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Exit {
    /// As a shell shows it: 128 and the signal's number where a signal ended it.
    pub(crate) code: i32,
    /// The signal that ended it.
    pub(crate) signal: Option<i32>,
    /// The kernel ended a process of it for memory.
    pub(crate) oom_killed: bool,
    /// When its program started.
    pub(crate) started_at: Timestamp,
    /// When it ended.
    pub(crate) finished_at: Timestamp,
}

/// The shim's one line to the agent that started it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Report {
    Started(State),
    Failed(String),
}

impl ShimConfig {
    pub(crate) fn read(dir: &Path) -> io::Result<ShimConfig> {
        read(&dir.join(CONFIG))
    }

    pub(crate) fn write(&self, dir: &Path) -> io::Result<()> {
        write(dir, CONFIG, self)
    }
}

impl State {
    /// The shim itself, before there is a container.
    pub(crate) fn starting() -> io::Result<State> {
        let shim_pid = nix::unistd::getpid().as_raw();
        Ok(State {
            shim_pid,
            shim_started: start_ticks(shim_pid)?,
            pid: None,
            started_at: Timestamp::now(),
        })
    }

    pub(crate) fn running(mut self, pid: i32) -> State {
        self.pid = Some(pid);
        self
    }

    pub(crate) fn read(dir: &Path) -> io::Result<State> {
        read(&dir.join(STATE))
    }

    pub(crate) fn write(&self, dir: &Path) -> io::Result<()> {
        write(dir, STATE, self)
    }
}

impl Exit {
    pub(crate) fn read(dir: &Path) -> io::Result<Exit> {
        read(&dir.join(EXIT))
    }

    pub(crate) fn write(&self, dir: &Path) -> io::Result<()> {
        write(dir, EXIT, self)
    }
}

fn read<T: for<'de> Deserialize<'de>>(path: &Path) -> io::Result<T> {
    serde_json::from_slice(&fs::read(path)?).map_err(io::Error::from)
}

/// Whole or not at all.
pub(crate) fn write<T: Serialize>(dir: &Path, name: &str, value: &T) -> io::Result<()> {
    let half = dir.join(format!(".{name}"));
    fs::write(&half, serde_json::to_vec(value)?)?;
    fs::rename(half, dir.join(name))
}

/// When a process started, in clock ticks since boot.
pub(crate) fn start_ticks(pid: i32) -> io::Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    parse_start_ticks(&stat).ok_or_else(|| io::Error::other("/proc/PID/stat has an unknown form"))
}

/// Field 22. The second is a name in parentheses that may itself hold spaces and parentheses.
fn parse_start_ticks(stat: &str) -> Option<u64> {
    let after_name = &stat[stat.rfind(')')? + 1..];
    after_name.split_ascii_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_ticks_are_found_behind_any_name() {
        let rest = "S 1 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 98765 1000 1";
        assert_eq!(parse_start_ticks(&format!("7 (a) {rest}")), Some(98765));
        assert_eq!(
            parse_start_ticks(&format!("7 (a) b (c)) {rest}")),
            Some(98765)
        );
        assert_eq!(parse_start_ticks("7 (a"), None);
    }
}
