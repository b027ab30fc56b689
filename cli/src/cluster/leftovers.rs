//! What a namespace's end does not take with it: control groups.

use std::path::{Path, PathBuf};

use anyhow::Context;

const CGROUPS: &str = "/sys/fs/cgroup";

/// Removes the control groups named `cgroup` in every hierarchy. Their processes must have ended.
pub(crate) fn remove_cgroups(cgroup: &str) -> anyhow::Result<()> {
    for path in cgroups(cgroup) {
        remove_tree(&path)?;
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

fn remove_tree(path: &Path) -> anyhow::Result<()> {
    let children =
        std::fs::read_dir(path).with_context(|| format!("cannot list {}", path.display()))?;
    for child in children.flatten() {
        if child.file_type().is_ok_and(|t| t.is_dir()) {
            remove_tree(&child.path())?;
        }
    }
    std::fs::remove_dir(path)
        .with_context(|| format!("cannot remove the control group {}", path.display()))
}
