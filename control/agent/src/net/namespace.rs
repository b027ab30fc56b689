//! Network namespaces: made, kept by a bind mount, entered by a thread of its own.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};

/// Why a namespace could not be made or entered.
#[derive(Debug, thiserror::Error)]
#[error("network namespace {path}: {step}")]
pub struct NamespaceError {
    path: PathBuf,
    step: &'static str,
    #[source]
    source: io::Error,
}

/// Makes a network namespace and keeps it at `path` (a file that a mount covers). One that is there stays.
pub fn create(path: &Path) -> Result<(), NamespaceError> {
    if is_namespace(path) {
        return Ok(());
    }
    let failed = |step| {
        let path = path.to_owned();
        move |source| NamespaceError { path, step, source }
    };
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(failed("creating its folder"))?;
    }
    File::create(path).map_err(failed("creating its file"))?;
    let kept = path.to_owned();
    in_thread(move || -> io::Result<()> {
        unshare(CloneFlags::CLONE_NEWNET)?;
        mount(
            Some("/proc/thread-self/ns/net"),
            &kept,
            None::<&str>,
            MsFlags::MS_BIND,
            None::<&str>,
        )?;
        Ok(())
    })
    .map_err(failed("making it"))
}

/// Whether `path` keeps a namespace now.
pub fn is_namespace(path: &Path) -> bool {
    nix::sys::statfs::statfs(path)
        .is_ok_and(|fs| fs.filesystem_type() == nix::sys::statfs::NSFS_MAGIC)
}

/// Runs `work` on a new thread inside the network namespace kept at `path`, and waits for it. Processes and sockets
/// that `work` makes belong to that namespace.
pub fn enter<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, NamespaceError> {
    let failed = |step| {
        let path = path.to_owned();
        move |source| NamespaceError { path, step, source }
    };
    let namespace = File::open(path).map_err(failed("opening it"))?;
    in_thread(move || {
        setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET)?;
        Ok(work())
    })
    .map_err(failed("entering it"))
}

/// Namespaces belong to threads: a thread of its own ends in the one it entered and disturbs nobody.
fn in_thread<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    std::thread::Builder::new()
        .name("namespace".to_owned())
        .spawn(work)?
        .join()
        .unwrap_or_else(|_| Err(io::Error::other("the thread in the namespace panicked")))
}

impl NamespaceError {
    pub(super) fn panicked(panic: &dyn std::fmt::Display) -> NamespaceError {
        NamespaceError {
            path: PathBuf::new(),
            step: "working inside it",
            source: io::Error::other(panic.to_string()),
        }
    }
}
