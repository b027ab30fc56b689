//! System calls, counted by `strace`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::peer::ended_with_us;
use crate::process;

/// For getting hold of every thread, and for the report.
const PATIENCE: Duration = Duration::from_secs(10);

/// Calls by name.
pub(crate) type Calls = BTreeMap<String, u64>;

/// A count that goes on; ended when dropped.
pub(crate) struct Count<'a> {
    process: Child,
    report: &'a Path,
}

impl<'a> Count<'a> {
    /// Of a process and all below it; returns when every thread is held.
    pub(crate) fn start(pid: u32, report: &'a Path) -> anyhow::Result<Self> {
        let mut command = ended_with_us("strace", None);
        command.args(["-c", "-f", "-q", "-o"]).arg(report);
        let family = process::family(pid)?;
        for pid in &family {
            command.args(["-p", &pid.to_string()]);
        }
        let process = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("strace")?;
        let mut count = Self { process, report };
        let start = Instant::now();
        loop {
            let held = family.iter().map(|pid| are_threads_held(*pid));
            if held
                .collect::<anyhow::Result<Vec<_>>>()?
                .iter()
                .all(|held| *held)
            {
                return Ok(count);
            }
            let ended = count.process.try_wait()?;
            if ended.is_some() || start.elapsed() > PATIENCE {
                bail!("strace gets no hold of {pid} (it needs the right to trace): {ended:?}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn finish(mut self) -> anyhow::Result<Calls> {
        kill(self.pid()?, Signal::SIGINT).context("ending strace")?;
        let start = Instant::now();
        while self.process.try_wait()?.is_none() {
            if start.elapsed() > PATIENCE {
                bail!("strace does not end");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        parse(&fs::read_to_string(self.report).context("strace's report")?)
    }

    fn pid(&self) -> anyhow::Result<Pid> {
        Ok(Pid::from_raw(self.process.id().try_into()?))
    }
}

impl Drop for Count<'_> {
    fn drop(&mut self) {
        if matches!(self.process.try_wait(), Ok(None)) {
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
    }
}

fn are_threads_held(pid: u32) -> anyhow::Result<bool> {
    for thread in fs::read_dir(format!("/proc/{pid}/task")).context("the process is gone")? {
        let status = fs::read_to_string(thread?.path().join("status"))?;
        if status.lines().any(|line| line == "TracerPid:\t0") {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Lines of `% time, seconds, usecs/call, calls, errors (or nothing), syscall`.
fn parse(report: &str) -> anyhow::Result<Calls> {
    let mut calls = Calls::new();
    for line in report.lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (Some(count), Some(name)) = (fields.get(3), fields.last()) else {
            continue;
        };
        if let Ok(count) = count.parse()
            && fields.len() >= 5
            && *name != "total"
        {
            calls.insert((*name).to_owned(), count);
        }
    }
    if calls.is_empty() {
        bail!("no calls in {report:?}");
    }
    Ok(calls)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn reports_are_read() {
        let report = "% time     seconds  usecs/call     calls    errors syscall\n\
                      ------ ----------- ----------- --------- --------- ----------------\n\
                      \x20 60.00    0.000300           3       100         7 recvfrom\n\
                      \x20 40.00    0.000200           4        50           writev\n\
                      ------ ----------- ----------- --------- --------- ----------------\n\
                      100.00    0.000500           3       150         7 total\n";
        let calls: Vec<_> = parse(report).unwrap().into_iter().collect();
        assert_eq!(calls, [("recvfrom".into(), 100), ("writev".into(), 50)]);
    }
}
