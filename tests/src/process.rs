//! What a process has, from /proc.

use std::fs;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Takes as many descriptors as this process may have: the usual limit is that of programs that cannot count further. How
/// many those are.
pub fn claim_descriptors() -> u64 {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("below the hard limit all is allowed");
    hard
}

/// How many descriptors it has open.
pub fn descriptors(pid: u32) -> usize {
    let folder = fs::read_dir(format!("/proc/{pid}/fd")).expect("the process is there");
    folder.count()
}

/// The most resident memory that it ever had, in bytes.
pub fn memory_peak(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process is there");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    let kib: u64 = kib.and_then(|kib| kib.parse().ok()).expect("a peak in kB");
    kib * 1024
}
