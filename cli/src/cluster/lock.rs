//! One owner of a data directory: a lock that the kernel drops when the last process of the cluster's frame ends.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

/// Held by `up`, then by the keeper: inherited, because a lock belongs to the open file and ends with its last
/// descriptor.
#[derive(Debug)]
pub(crate) struct Lock {
    file: File,
}

impl Lock {
    /// Takes the directory, or says who has it.
    pub(crate) fn take(data_dir: &Path) -> anyhow::Result<Lock> {
        let path = path(data_dir);
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .with_context(|| {
                format!(
                    "cannot open {}: is the data directory writable?",
                    path.display()
                )
            })?;
        match file.try_lock() {
            Ok(()) => Ok(Lock { file }),
            Err(TryLockError::WouldBlock) => bail!(
                "the data directory {0} is in use by a running cluster: `meshgate down --data-dir {0}` stops it, \
                 --data-dir chooses another",
                data_dir.display()
            ),
            Err(TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("cannot lock {}", path.display()))
            }
        }
    }

    /// The same lock under another descriptor, for a child to keep.
    pub(crate) fn try_clone(&self) -> anyhow::Result<File> {
        self.file
            .try_clone()
            .context("cannot copy the lock's descriptor")
    }

    pub(crate) fn is_held(data_dir: &Path) -> anyhow::Result<bool> {
        let path = path(data_dir);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot open {}", path.display()));
            }
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("cannot ask for the lock of {}", path.display()))
            }
        }
    }

    /// Blocks until nobody holds the directory.
    pub(crate) fn wait_until_free(data_dir: &Path) -> anyhow::Result<()> {
        let path = path(data_dir);
        let file = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
        file.lock_shared()
            .with_context(|| format!("cannot wait for the lock of {}", path.display()))
    }
}

fn path(data_dir: &Path) -> PathBuf {
    data_dir.join("lock")
}

/// Takes over a descriptor that the parent left open for this process, by its number.
#[expect(
    unsafe_code,
    reason = "the parent opened the descriptor for us and said its number; nobody else owns it"
)]
pub(crate) fn inherited(descriptor: RawFd) -> anyhow::Result<OwnedFd> {
    nix::fcntl::fcntl(
        // SAFETY: only used for the call; a number that is not open is an error of the call.
        unsafe { std::os::fd::BorrowedFd::borrow_raw(descriptor) },
        nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC),
    )
    .with_context(|| format!("descriptor {descriptor} was not handed over"))?;
    // SAFETY: it is open, as the call above has shown, and this process got it for this one use.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Leaves a descriptor open for the children that are started next.
pub(crate) fn bequeath(descriptor: impl std::os::fd::AsFd) -> anyhow::Result<RawFd> {
    nix::fcntl::fcntl(
        descriptor.as_fd(),
        nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty()),
    )
    .context("cannot hand a descriptor over")?;
    Ok(descriptor.as_fd().as_raw_fd())
}
