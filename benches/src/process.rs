//! What a process used, from /proc.

use std::fmt;
use std::fs;
use std::ops::Add;
use std::time::Duration;

use anyhow::Context as _;

/// `USER_HZ`: what /proc counts CPU time in, fixed at 100 on Linux.
const TICK: Duration = Duration::from_millis(10);

/// CPU time of all threads, user and system.
pub(crate) fn cpu(pid: u32) -> anyhow::Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("the process is gone")?;
    // The second field is the command in parentheses, and may hold anything.
    let fields = stat.rsplit_once(") ").context("no fields")?.1;
    let fields: Vec<&str> = fields.split(' ').collect();
    let ticks = |index: usize| -> anyhow::Result<u32> {
        let field = fields.get(index).context("a field is missing")?;
        field.parse().context("not a number")
    };
    // utime and stime are fields 14 and 15; the state, field 3, comes first here.
    Ok(TICK * (ticks(11)? + ticks(12)?))
}

/// Every process that this one sees.
fn all() -> anyhow::Result<Vec<u32>> {
    let entries = fs::read_dir("/proc").context("/proc")?;
    let names = entries.map(|entry| Ok(entry?.file_name()));
    let names: Vec<_> = names.collect::<std::io::Result<_>>()?;
    let pids = names.iter().filter_map(|name| name.to_str()?.parse().ok());
    Ok(pids.collect())
}

/// The process that was started with `NAME=value`, if there is one.
pub(crate) fn with_environment(variable: &str) -> anyhow::Result<Option<u32>> {
    let has = |pid: &u32| {
        // Of processes that are gone, or not ours to see, nothing is known.
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let mut variables = environment.split(|byte| *byte == 0);
        variables.any(|found| found == variable.as_bytes())
    };
    Ok(all()?.into_iter().find(has))
}

/// A process and all below it.
pub(crate) fn family(pid: u32) -> anyhow::Result<Vec<u32>> {
    let mut parents = Vec::new();
    for pid in all()? {
        // Whoever is gone by now is nobody's child.
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let parent = stat
            .rsplit_once(") ")
            .and_then(|(_, fields)| fields.split(' ').nth(1));
        if let Some(parent) = parent.and_then(|parent| parent.parse::<u32>().ok()) {
            parents.push((pid, parent));
        }
    }
    let mut family = vec![pid];
    let mut next = 0;
    while let Some(above) = family.get(next).copied() {
        let children = parents.iter().filter(|(_, parent)| *parent == above);
        family.extend(children.map(|(pid, _)| *pid));
        next += 1;
    }
    Ok(family)
}

/// Resident memory, and the share of it when pages are divided among those who map them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Memory {
    resident_kib: u64,
    pub(crate) proportional_kib: u64,
}

pub(crate) fn memory(pid: u32) -> anyhow::Result<Memory> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))
        .context("the process is gone, or not ours to see")?;
    let field = |name: &str| -> anyhow::Result<u64> {
        let line = rollup.lines().find_map(|line| line.strip_prefix(name));
        let number = line.and_then(|line| line.trim().strip_suffix(" kB"));
        let number = number.with_context(|| format!("no {name}"))?;
        number.parse().context("not a number")
    };
    Ok(Memory {
        resident_kib: field("Rss:")?,
        proportional_kib: field("Pss:")?,
    })
}

/// Resident memory that is the process's alone, such as its heap, in KiB: what its budget counts.
pub(crate) fn anonymous_kib(pid: u32) -> anyhow::Result<u64> {
    let status =
        fs::read_to_string(format!("/proc/{pid}/status")).context("the process is gone")?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    let number = line.and_then(|line| line.trim().strip_suffix(" kB"));
    number
        .context("no RssAnon")?
        .parse()
        .context("not a number")
}

impl Add for Memory {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            resident_kib: self.resident_kib + other.resident_kib,
            proportional_kib: self.proportional_kib + other.proportional_kib,
        }
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |kib: u64| kib as f64 / 1024.0;
        let (resident, proportional) = (mib(self.resident_kib), mib(self.proportional_kib));
        write!(f, "{resident:.1} ({proportional:.1})")
    }
}

/// What the figures were measured on.
pub(crate) fn machine() -> String {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo
        .lines()
        .find(|line| line.starts_with("model name"))
        .and_then(|line| line.split_once(": "))
        .map_or("unknown", |(_, model)| model);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{cores} cores, {model}, Linux {}", kernel.trim())
}
