//! The cluster's own view of the machine's files: processes of its own, an empty /run, and nothing of it seen outside.

use std::path::Path;

use anyhow::Context;
use nix::mount::{MsFlags, mount};
use nix::unistd::Uid;

/// Called once by the first process of the new mount and process namespaces.
pub(super) fn prepare() -> anyhow::Result<()> {
    let none = None::<&str>;
    let safe = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .context("cannot make mounts private")?;
    mount(
        Some("proc"),
        "/proc",
        Some("proc"),
        safe | MsFlags::MS_NOEXEC,
        none,
    )
    .context("cannot mount /proc")?;
    mount(
        Some("tmpfs"),
        "/run",
        Some("tmpfs"),
        safe,
        Some("mode=0755"),
    )
    .context("cannot mount an empty /run")?;
    if !inside_first_user_namespace()? {
        // Control groups of the host are not ours to write: a fresh mount shows the part that is.
        mount(
            Some("cgroup2"),
            "/sys/fs/cgroup",
            Some("cgroup2"),
            safe | MsFlags::MS_NOEXEC,
            none,
        )
        .context("cannot mount control groups")?;
    }
    std::fs::create_dir_all(super::RUN_DIR)
        .with_context(|| format!("cannot make {}", super::RUN_DIR))?;
    nix::unistd::sethostname("meshgate").context("cannot name the cluster's host")?;
    Ok(())
}

/// Whether this root is the machine's root: then all ids are mapped.
fn inside_first_user_namespace() -> anyhow::Result<bool> {
    let map =
        std::fs::read_to_string("/proc/self/uid_map").context("cannot read /proc/self/uid_map")?;
    let mut fields = map.split_whitespace();
    Ok(Uid::effective().is_root()
        && fields.nth(2) == Some("4294967295")
        && Path::new("/sys/fs/cgroup").exists())
}
