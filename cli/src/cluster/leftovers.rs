//! What a namespace's end does not take with it: control groups.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;

const CGROUPS: &str = "/sys/fs/cgroup";

/// Processes of a cluster that was killed are gone from their control groups after this at the latest.
const DYING: Duration = Duration::from_secs(5);
/// Between two looks at a group whose processes are dying: version 1 has no event for its emptiness.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Removes the control groups named `cgroup` in every hierarchy. Their processes must have been ended.
pub(crate) fn remove_cgroups(cgroup: &str) -> anyhow::Result<()> {
    let deadline = Instant::now() + DYING;
    for path in cgroups(cgroup) {
        remove_tree(&path, deadline)?;
    }
    Ok(())
}

/// The control groups that exist: one in a unified hierarchy, one a controller otherwise.
pub(crate) fn cgroups(cgroup: &str) -> Vec<PathBuf> {
    let root = Path::new(CGROUPS);
    let hierarchies = std::fs::read_dir(root)
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.path());
    std::iter::once(root.to_owned())
        .chain(hierarchies)
        .map(|hierarchy| hierarchy.join(cgroup))
        .filter(|path| path.is_dir())
        .collect()
}

fn remove_tree(path: &Path, deadline: Instant) -> anyhow::Result<()> {
    let children =
        std::fs::read_dir(path).with_context(|| format!("cannot list {}", path.display()))?;
    for child in children.flatten() {
        if child.file_type().is_ok_and(|t| t.is_dir()) {
            remove_tree(&child.path(), deadline)?;
        }
    }
    loop {
        match std::fs::remove_dir(path) {
            Err(error) if error.kind() == ErrorKind::ResourceBusy && Instant::now() < deadline => {
                std::thread::sleep(LOOK_AGAIN);
            }
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            other => {
                return other.with_context(|| {
                    format!("cannot remove the control group {}", path.display())
                });
            }
        }
    }
}
