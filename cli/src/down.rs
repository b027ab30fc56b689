//! `meshgate down`: ends a cluster and sees that nothing stays.

use std::io::Write;
use std::process::ExitCode;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use anyhow::{Context, bail};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::args::ClusterArgs;
use crate::cluster::{Cluster, Lock, leftovers};

/// The cluster gets this long to end in order, then it is killed.
const GRACE: Duration = Duration::from_secs(15);

pub(crate) fn run(args: &ClusterArgs) -> anyhow::Result<ExitCode> {
    let cluster = Cluster::find(args)?;
    if !cluster.data_dir.is_dir() || !Lock::is_held(&cluster.data_dir)? {
        leftovers::remove_cgroups(&cluster.cgroup())?;
        say(&format!("cluster {:?} is not running", cluster.name));
        return Ok(ExitCode::SUCCESS);
    }
    let keeper = Pid::from_raw(cluster.running()?.keeper_pid);
    signal(keeper, Signal::SIGTERM)?;
    if !free_within(&cluster, GRACE)? {
        signal(keeper, Signal::SIGKILL)?;
        if !free_within(&cluster, GRACE)? {
            bail!(
                "process {keeper} of cluster {:?} does not end, even killed",
                cluster.name
            );
        }
    }
    leftovers::remove_cgroups(&cluster.cgroup())?;
    say(&format!(
        "stopped; the data stays in {}",
        cluster.data_dir.display()
    ));
    Ok(ExitCode::SUCCESS)
}

fn signal(keeper: Pid, signal: Signal) -> anyhow::Result<()> {
    match kill(keeper, signal) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(error) => Err(error).with_context(|| {
            format!("cannot end process {keeper}; was the cluster started by another user?")
        }),
    }
}

/// Waits on a thread, because the wait for a lock has no timeout of its own. The thread ends with the process.
fn free_within(cluster: &Cluster, grace: Duration) -> anyhow::Result<bool> {
    let (sender, receiver) = mpsc::channel();
    let data_dir = cluster.data_dir.clone();
    std::thread::spawn(move || sender.send(Lock::wait_until_free(&data_dir)));
    match receiver.recv_timeout(grace) {
        Ok(result) => result.map(|()| true),
        Err(RecvTimeoutError::Timeout) => Ok(false),
        Err(RecvTimeoutError::Disconnected) => {
            bail!("the wait for the cluster's end ended by itself")
        }
    }
}

fn say(line: &str) {
    let _gone = writeln!(std::io::stdout(), "{line}");
}
