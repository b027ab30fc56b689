//! Whether the kernel ended a process of the container for memory.

use std::fs;

/// Reads the control group's count: cgroup v2 or v1, whichever is there.
pub(super) fn was_killed(cgroup: &str) -> bool {
    let cgroup = cgroup.trim_start_matches('/');
    let unified = format!("/sys/fs/cgroup/{cgroup}/memory.events");
    let legacy = format!("/sys/fs/cgroup/memory/{cgroup}/memory.oom_control");
    [unified, legacy]
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok())
        .any(|text| kills(&text) > 0)
}

/// Both files have the line `oom_kill N`.
fn kills(text: &str) -> u64 {
    text.lines()
        .find_map(|line| line.strip_prefix("oom_kill "))
        .and_then(|count| count.trim().parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read() {
        assert_eq!(kills("low 0\nhigh 0\nmax 9\noom 1\noom_kill 2\n"), 2);
        assert_eq!(kills("oom_kill_disable 0\nunder_oom 0\noom_kill 1\n"), 1);
        assert_eq!(kills("oom_kill_disable 1\nunder_oom 0\n"), 0);
    }
}
