//! How much memory the process may use, and what it does near the end of it.
//!
//! The kernel ends a process that uses more than it may, with all its connections. So new requests are answered 503 from
//! the budget on, and beyond it connections are closed before they cost anything; what is under way goes on. The budget
//! leaves room for that, and for what the kernel keeps for the process: the bytes in sockets.
//!
//! An allocator keeps what was freed for a while, and looks again only when it is used, which a proxy that refuses hardly
//! does: so before it refuses, and when most of many connections are gone, it has the free memory given back.
//!
//! What counts is read from the kernel, when something new comes and not more often than `FRESH_NS`: no accounting on
//! anyone's path, no part of the process forgotten, nothing to do while nobody comes.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use meshgate_routing::Time;

/// How the process stands.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Pressure {
    None,
    /// No more requests.
    High,
    /// No more connections either.
    Critical,
}

/// The process's memory.
#[derive(Debug)]
pub(crate) struct Memory {
    budget: u64,
    /// `/proc/self/statm`; without it nobody knows, and all is well.
    source: Option<File>,
    read_at: AtomicU64,
    used: AtomicU64,
    /// Gives back what the allocator keeps.
    reclaim: Option<fn()>,
    reclaimed_at: AtomicU64,
}

/// Giving back takes milliseconds at worst.
const RECLAIM_EVERY_NS: u64 = 100_000_000;
/// Reading costs a few microseconds, filling memory takes longer.
const FRESH_NS: u64 = 10_000_000;

impl Memory {
    /// `None`: as much as there is.
    pub(crate) fn new(budget: Option<u64>, reclaim: Option<fn()>) -> Self {
        let source = budget.and_then(|_| {
            File::open("/proc/self/statm")
                .inspect_err(|error| tracing::warn!(%error, "memory use is not watched"))
                .ok()
        });
        Self {
            budget: budget.unwrap_or(u64::MAX),
            source,
            read_at: AtomicU64::new(0),
            used: AtomicU64::new(0),
            reclaim,
            reclaimed_at: AtomicU64::new(0),
        }
    }

    pub(crate) fn pressure(&self, now: Time) -> Pressure {
        let Some(source) = &self.source else {
            return Pressure::None;
        };
        pressure(self.used(source, now), self.budget)
    }

    /// What the calling thread's part of the allocator keeps.
    pub(crate) fn give_back(&self) {
        if let Some(reclaim) = self.reclaim {
            reclaim();
        }
    }

    fn used(&self, source: &File, now: Time) -> u64 {
        let now = now.as_nanos().max(1);
        // One reads, and the others go on with what is known.
        if is_due(&self.read_at, now, FRESH_NS)
            && let Some(mut used) = anonymous_bytes(source)
        {
            if self.reclaim.is_some()
                && used >= self.budget
                && is_due(&self.reclaimed_at, now, RECLAIM_EVERY_NS)
            {
                self.give_back();
                used = anonymous_bytes(source).unwrap_or(used);
            }
            self.used.store(used, Ordering::Relaxed);
        }
        self.used.load(Ordering::Relaxed)
    }
}

/// Whether it is time again, for one of those who ask. Zero: it never was.
fn is_due(last: &AtomicU64, now: u64, every: u64) -> bool {
    let before = last.load(Ordering::Relaxed);
    let is_stale = before == 0 || now.saturating_sub(before) >= every;
    let relaxed = Ordering::Relaxed;
    is_stale && last.compare_exchange(before, now, relaxed, relaxed).is_ok()
}

fn pressure(used: u64, budget: u64) -> Pressure {
    if used < budget {
        Pressure::None
    } else if used - budget < budget / 8 {
        Pressure::High
    } else {
        Pressure::Critical
    }
}

/// Memory that is the process's alone: the kernel cannot take it back, as it can the program's pages.
fn anonymous_bytes(statm: &File) -> Option<u64> {
    let mut buffer = [0; 128];
    let count = statm.read_at(&mut buffer, 0).ok()?;
    let text = std::str::from_utf8(buffer.get(..count)?).ok()?;
    let mut pages = text.split(' ').skip(1).map(str::parse::<u64>);
    let (resident, of_files) = (pages.next()?.ok()?, pages.next()?.ok()?);
    Some(resident.saturating_sub(of_files) * page_bytes())
}

fn page_bytes() -> u64 {
    let size = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE);
    size.ok()
        .flatten()
        .and_then(|size| size.try_into().ok())
        .unwrap_or(4096)
}

/// A budget for a process that nobody gave one: three quarters of what its control groups allow, or of the machine's
/// memory.
pub fn default_budget() -> Option<u64> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let allowed = group_limits(&groups, Path::new("/sys/fs/cgroup"));
    let limit = allowed.into_iter().chain(machine_bytes()).min()?;
    Some(limit / 4 * 3)
}

/// The limits of a process's control groups and of those above them, of version 2 and of version 1.
fn group_limits(groups: &str, mounted: &Path) -> Vec<u64> {
    let mut limits = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else {
            continue;
        };
        let (root, file) = match controllers {
            "" => (mounted.to_owned(), "memory.max"),
            some if some.split(',').any(|one| one == "memory") => {
                (mounted.join("memory"), "memory.limit_in_bytes")
            }
            _ => continue,
        };
        // In a container the path may be the host's, and only the root be there: it is the container's own then.
        let group = root.join(path.trim_start_matches('/'));
        for folder in group.ancestors().take_while(|at| at.starts_with(&root)) {
            let text = std::fs::read_to_string(folder.join(file)).unwrap_or_default();
            limits.extend(text.trim().parse::<u64>());
        }
    }
    limits
}

fn machine_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_requests_then_connections() {
        let check = |used, expected| assert_eq!(pressure(used, 800), expected, "{used}");
        check(0, Pressure::None);
        check(799, Pressure::None);
        check(800, Pressure::High);
        check(899, Pressure::High);
        check(900, Pressure::Critical);
    }

    #[test]
    fn what_is_used_is_read_and_not_too_often() {
        let memory = Memory::new(Some(u64::MAX), None);
        let source = memory.source.as_ref().unwrap();
        let first = memory.used(source, Time::from_nanos(1));
        assert!(first > 4096, "{first}");
        let more = vec![1_u8; 64 << 20];
        assert_eq!(memory.used(source, Time::from_nanos(FRESH_NS)), first);
        let then = memory.used(source, Time::from_nanos(FRESH_NS + 1));
        assert!(then >= first + (more.len() as u64) / 2, "{first} {then}");
    }

    #[test]
    fn what_is_kept_is_given_back_before_anybody_is_refused() {
        static CALLS: AtomicU64 = AtomicU64::new(0);
        let reclaim: fn() = || {
            CALLS.fetch_add(1, Ordering::Relaxed);
        };
        let check = |budget, at: &[u64], expected| {
            let memory = Memory::new(Some(budget), Some(reclaim));
            CALLS.store(0, Ordering::Relaxed);
            for at in at {
                memory.pressure(Time::from_nanos(*at));
            }
            assert_eq!(CALLS.load(Ordering::Relaxed), expected, "{budget} {at:?}");
        };
        check(u64::MAX, &[1], 0);
        check(1, &[1, FRESH_NS + 1], 1);
        check(1, &[1, FRESH_NS + 1, RECLAIM_EVERY_NS + 1], 2);
    }

    #[test]
    fn limits_of_both_versions_and_of_all_above() {
        let dir = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        put("memory.max", "3000\n");
        put("a/memory.max", "max\n");
        put("a/b/memory.max", "1000\n");
        put("memory/memory.limit_in_bytes", "9223372036854771712\n");
        put("memory/x/memory.limit_in_bytes", "2000\n");
        let check = |groups: &str, expected: &[u64]| {
            assert_eq!(group_limits(groups, dir.path()), expected, "{groups}");
        };
        check("0::/a/b\n", &[1000, 3000]);
        check("0::/\n", &[3000]);
        check("5:cpu,memory:/x\n4:pids:/x\n", &[2000, 9223372036854771712]);
        check("5:memory:/kubepods/pod1\n", &[9223372036854771712]);
        check("nonsense\n", &[]);
    }

    #[test]
    fn this_machine_has_a_budget() {
        let machine = machine_bytes().unwrap();
        let budget = default_budget().unwrap();
        assert!(budget > 0 && budget <= machine, "{budget} of {machine}");
    }
}
