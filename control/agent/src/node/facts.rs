//! What a node is: read once at start.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};

use crate::cgroup::Limits;

/// Pods of one node, at most: what its addresses are enough for, less some in transition.
const PODS_MAX: u32 = 110;

/// A node's facts.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    pub(crate) name: String,
    pub(crate) address: IpAddr,
    /// First address of its pods.
    pub(crate) pod_network: Ipv4Addr,
    pub(crate) cpus: usize,
    pub(crate) memory_bytes: u64,
    pub(crate) pods: u32,
    pub(crate) kernel: String,
    pub(crate) os_image: String,
    pub(crate) machine_id: String,
    pub(crate) boot_id: String,
    pub(crate) limits: Limits,
}

impl Facts {
    /// Reads the machine.
    pub(crate) fn read(
        name: &str,
        address: IpAddr,
        pod_network: Ipv4Addr,
        limits: Limits,
    ) -> Facts {
        let line = |path: &str| {
            fs::read_to_string(path)
                .unwrap_or_default()
                .trim()
                .to_owned()
        };
        Facts {
            name: name.to_owned(),
            address,
            pod_network,
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: memory_bytes(&line("/proc/meminfo")),
            pods: PODS_MAX,
            kernel: line("/proc/sys/kernel/osrelease"),
            os_image: os_image(&line("/etc/os-release")),
            machine_id: line("/etc/machine-id"),
            boot_id: line("/proc/sys/kernel/random/boot_id"),
            limits,
        }
    }
}

fn memory_bytes(meminfo: &str) -> u64 {
    let total = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = total.and_then(|total| total.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

fn os_image(release: &str) -> String {
    let name = release
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.unwrap_or("Linux").trim_matches('"').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read() {
        assert_eq!(
            memory_bytes("MemTotal:       24685000 kB\nMemFree: 1 kB"),
            24_685_000 * 1024
        );
        assert_eq!(memory_bytes(""), 0);
        assert_eq!(
            os_image("ID=debian\nPRETTY_NAME=\"Debian GNU/Linux 13\"\n"),
            "Debian GNU/Linux 13"
        );
        assert_eq!(os_image(""), "Linux");
    }
}
