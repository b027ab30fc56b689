//! Control groups: which there are, and the folders of pods that the OCI runtime leaves behind.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};

const ROOT: &str = "/sys/fs/cgroup";

/// The hierarchies of this machine, as far as pods use them.
#[derive(Debug, Clone)]
pub(crate) struct Cgroups {
    parent: String,
    /// Roots of all hierarchies.
    roots: Vec<PathBuf>,
    limits: Limits,
}

/// Whether pods can be limited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Limits {
    Enforced,
    /// Why not.
    Absent(&'static str),
}

impl Cgroups {
    /// Looks around. `parent` is the node's own group from each hierarchy's root.
    pub(crate) fn find(parent: &str) -> Cgroups {
        let root = Path::new(ROOT);
        let unified = statfs(root).is_ok_and(|fs| fs.filesystem_type() == CGROUP2_SUPER_MAGIC);
        let (roots, limits) = if unified {
            (vec![root.to_owned()], v2_limits(root))
        } else {
            v1(root)
        };
        Cgroups {
            parent: format!("/{}", parent.trim_matches('/')),
            roots,
            limits,
        }
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// A container's group.
    pub(crate) fn container(&self, uid: &str, id: &str) -> String {
        format!("{}/pod{uid}/{id}", self.parent)
    }

    /// Removes a pod's groups, once its containers have ended.
    pub(crate) fn remove_pod(&self, uid: &str) {
        let pod = format!("{}/pod{uid}", self.parent);
        for root in &self.roots {
            if let Err(error) = remove(&root.join(pod.trim_start_matches('/')))
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::debug!(uid, %error, "a control group stays");
            }
        }
    }
}

/// Groups within first; the kernel's own files in them need no removing.
fn remove(group: &Path) -> io::Result<()> {
    for entry in fs::read_dir(group)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove(&entry.path())?;
        }
    }
    fs::remove_dir(group)
}

fn v2_limits(root: &Path) -> Limits {
    let controllers = fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
    let has = |name: &str| {
        controllers
            .split_ascii_whitespace()
            .any(|known| known == name)
    };
    if !has("cpu") || !has("memory") {
        return Limits::Absent(
            "the controllers cpu and memory are not delegated to this control group",
        );
    }
    // The names are listed even where nothing may be changed.
    match fs::File::options()
        .write(true)
        .open(root.join("cgroup.subtree_control"))
    {
        Ok(_) => Limits::Enforced,
        Err(_) => Limits::Absent("control groups are not writable"),
    }
}

fn v1(root: &Path) -> (Vec<PathBuf>, Limits) {
    let roots: Vec<PathBuf> = fs::read_dir(root)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect();
    let writable = |name: &str| {
        fs::File::options()
            .write(true)
            .open(root.join(name).join("cgroup.procs"))
            .is_ok()
    };
    let limits = if writable("cpu") && writable("memory") {
        Limits::Enforced
    } else {
        Limits::Absent("the controllers cpu and memory are not there or not writable")
    };
    (roots, limits)
}
