//! What a pod's containers share: namespaces for network, IPC and host name, kept by mounts, and a /dev/shm. No process
//! holds them, so nothing of a sandbox can crash.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

use crate::net::namespace;

/// Size of /dev/shm, as container runtimes have it.
const SHM_OPTIONS: &str = "mode=1777,size=65536k";

/// A pod's sandbox on disk.
#[derive(Debug, Clone)]
pub(crate) struct Sandbox {
    dir: PathBuf,
    host_network: bool,
    host_ipc: bool,
}

/// Why a sandbox could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SandboxError {
    #[error("{step}")]
    Step {
        step: &'static str,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Namespace(#[from] crate::net::NamespaceError),
    #[error(transparent)]
    Network(#[from] crate::net::NetworkError),
}

impl SandboxError {
    fn at(step: &'static str) -> impl FnOnce(io::Error) -> SandboxError {
        move |source| SandboxError::Step { step, source }
    }
}

impl Sandbox {
    pub(crate) fn new(dir: PathBuf, host_network: bool, host_ipc: bool) -> Sandbox {
        Sandbox {
            dir,
            host_network,
            host_ipc,
        }
    }

    /// Path of the network namespace; `None` where the pod uses the node's.
    pub(crate) fn network(&self) -> Option<PathBuf> {
        (!self.host_network).then(|| self.dir.join("net"))
    }

    pub(crate) fn ipc(&self) -> Option<PathBuf> {
        (!self.host_ipc).then(|| self.dir.join("ipc"))
    }

    /// With the node's network the pod has the node's name.
    pub(crate) fn uts(&self) -> Option<PathBuf> {
        (!self.host_network).then(|| self.dir.join("uts"))
    }

    pub(crate) fn shm(&self) -> PathBuf {
        self.dir.join("shm")
    }

    /// Whether it is there: a restarted machine has forgotten it.
    pub(crate) fn exists(&self) -> bool {
        let namespaces = [self.network(), self.ipc(), self.uts()];
        namespaces
            .iter()
            .flatten()
            .all(|path| namespace::is_namespace(path))
            && self.shm().exists()
    }

    /// Makes what is missing.
    pub(crate) fn create(&self, host_name: &str) -> Result<(), SandboxError> {
        fs::create_dir_all(&self.dir).map_err(SandboxError::at("creating the sandbox's folder"))?;
        if let Some(path) = self.network() {
            namespace::create(&path)?;
        }
        self.create_others(host_name)
            .map_err(SandboxError::at("making the sandbox's namespaces"))?;
        let shm = self.shm();
        if !shm.exists() {
            fs::create_dir(&shm).map_err(SandboxError::at("creating /dev/shm"))?;
            mount(
                Some("shm"),
                &shm,
                Some("tmpfs"),
                MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC,
                Some(SHM_OPTIONS),
            )
            .map_err(|error| SandboxError::at("mounting /dev/shm")(error.into()))?;
        }
        Ok(())
    }

    fn create_others(&self, host_name: &str) -> io::Result<()> {
        let mut flags = CloneFlags::empty();
        let mut keep = Vec::new();
        for (flag, kind, path) in [
            (CloneFlags::CLONE_NEWIPC, "ipc", self.ipc()),
            (CloneFlags::CLONE_NEWUTS, "uts", self.uts()),
        ] {
            let Some(path) = path.filter(|path| !namespace::is_namespace(path)) else {
                continue;
            };
            File::create(&path)?;
            flags |= flag;
            keep.push((kind, path));
        }
        if keep.is_empty() {
            return Ok(());
        }
        let host_name = host_name.to_owned();
        // Namespaces belong to threads: one of its own makes them and ends.
        std::thread::Builder::new()
            .name("sandbox".to_owned())
            .spawn(move || -> io::Result<()> {
                unshare(flags)?;
                if flags.contains(CloneFlags::CLONE_NEWUTS) {
                    nix::unistd::sethostname(&host_name)?;
                }
                for (kind, path) in keep {
                    let own = format!("/proc/thread-self/ns/{kind}");
                    mount(
                        Some(own.as_str()),
                        &path,
                        None::<&str>,
                        MsFlags::MS_BIND,
                        None::<&str>,
                    )?;
                }
                Ok(())
            })?
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the thread that makes them panicked")))
    }
}

/// Removes a sandbox, whatever is there of it. Containers must have ended.
pub(crate) fn remove(dir: &Path) -> io::Result<()> {
    for name in ["net", "ipc", "uts", "shm"] {
        // Not mounted is as good.
        let _ = umount2(&dir.join(name), MntFlags::MNT_DETACH);
    }
    crate::volume::unmount(dir)?;
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
