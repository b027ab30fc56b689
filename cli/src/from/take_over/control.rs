//! The socket under which a running edge is found by the one that replaces it.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener as StdListener, UnixStream as StdStream};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use nix::unistd::Uid;
use tokio::net::{UnixListener, UnixStream};

/// A listening control socket. Its name is removed with the value, unless another process has it by then.
#[derive(Debug)]
pub(in super::super) struct ControlSocket {
    listener: UnixListener,
    path: PathBuf,
    ours: bool,
}

/// Where the control socket is when nobody says: by the edge's first listener, in a folder of the user's own.
fn default_path(first: SocketAddr) -> PathBuf {
    let run = std::env::var_os("XDG_RUNTIME_DIR").map_or_else(|| "/run".into(), PathBuf::from);
    // Of port 0 many may run.
    let name = match first.port() {
        0 => format!("ingress-{}.sock", std::process::id()),
        _ => format!("ingress-{first}.sock"),
    };
    run.join("meshgate").join(name)
}

/// The path that was given, or the usual one.
pub(super) fn path(given: Option<&Path>, first: SocketAddr) -> PathBuf {
    given.map_or_else(|| default_path(first), Path::to_owned)
}

impl ControlSocket {
    /// A new one. Without a folder for the usual place there is none: SIGUSR2 does without.
    pub(in super::super) fn open(
        given: Option<&Path>,
        first: SocketAddr,
    ) -> anyhow::Result<Option<Self>> {
        let path = path(given, first);
        match bind(&path) {
            Ok(listener) => Self::new(listener, path, true).map(Some),
            Err(error) if given.is_some() => Err(error),
            Err(error) => {
                tracing::warn!(
                    error = format!("{error:#}"),
                    "no control socket: --take-over will not find this process, SIGUSR2 still replaces it"
                );
                Ok(None)
            }
        }
    }

    /// The former process's, if it is at the right place. Its name is that process's until [`adopt`](Self::adopt).
    pub(super) fn inherit(handed_over: OwnedFd, path: PathBuf) -> anyhow::Result<Option<Self>> {
        let listener = StdListener::from(handed_over);
        let at = listener.local_addr().context("the control socket")?;
        if at.as_pathname() != Some(&path) {
            return Ok(None);
        }
        Self::new(listener, path, false).map(Some)
    }

    fn new(listener: StdListener, path: PathBuf, ours: bool) -> anyhow::Result<Self> {
        listener
            .set_nonblocking(true)
            .context("cannot use the control socket")?;
        Ok(Self {
            listener: UnixListener::from_std(listener).context("cannot use the control socket")?,
            path,
            ours,
        })
    }

    /// Nobody else has it any more.
    pub(super) fn adopt(&mut self) {
        self.ours = true;
    }

    /// The next process that wants something, if it is the same user's, or root's.
    pub(super) async fn accept(&self) -> io::Result<UnixStream> {
        let (stream, _) = self.listener.accept().await?;
        let peer = stream.peer_cred()?.uid();
        if peer != Uid::effective().as_raw() && peer != 0 {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                format!("user {peer} may not take over this process"),
            ));
        }
        Ok(stream)
    }

    /// Another process listens there: the name stays.
    pub(super) fn handed_over(&mut self) {
        self.ours = false;
    }
}

impl AsFd for ControlSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        if self.ours
            && let Err(error) = std::fs::remove_file(&self.path)
        {
            tracing::debug!(%error, path = %self.path.display(), "the control socket stays");
        }
    }
}

fn bind(path: &Path) -> anyhow::Result<StdListener> {
    if let Some(folder) = path.parent() {
        let mut builder = std::fs::DirBuilder::new();
        let made = builder.recursive(true).mode(0o700).create(folder);
        made.with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let listener = match StdListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            remove_if_dead(path)?;
            StdListener::bind(path)
        }
        other => other,
    };
    let listener = listener.with_context(|| format!("cannot listen on {}", path.display()))?;
    // Whoever comes in between is asked for its user, too.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
        .with_context(|| format!("cannot close {} to others", path.display()))?;
    Ok(listener)
}

/// What a process that was killed has left.
fn remove_if_dead(path: &Path) -> anyhow::Result<()> {
    match StdStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).with_context(|| format!("cannot remove {}", path.display()))
        }
        Ok(_) => bail!(
            "another edge is served with {}: --take-over replaces it, --control-socket chooses another path",
            path.display()
        ),
        Err(error) => Err(error).with_context(|| format!("cannot use {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

    #[tokio::test]
    async fn a_dead_one_is_replaced_and_a_living_one_respected() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/control");
        let open = || ControlSocket::open(Some(&path), ANY);
        let first = open().unwrap().unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let refused = open().unwrap_err().to_string();
        assert!(
            refused.starts_with("another edge is served with "),
            "{refused}"
        );
        drop(first);
        assert!(!path.exists(), "its name goes with it");
        drop(StdListener::bind(&path).unwrap());
        assert!(path.exists(), "nobody listens there");
        let mut again = open().unwrap().unwrap();

        // Handed over, it is the same one, and its name stays until the last has it.
        let inherit = |from: &ControlSocket| {
            let descriptor = from.as_fd().try_clone_to_owned().unwrap();
            ControlSocket::inherit(descriptor, path.clone())
        };
        drop(inherit(&again).unwrap().unwrap());
        assert!(path.exists(), "a take-over that fails leaves it");
        let mut taken = inherit(&again).unwrap().unwrap();
        again.handed_over();
        drop(again);
        StdStream::connect(&path).unwrap();
        taken.adopt();
        drop(taken);
        assert!(!path.exists());
    }
}
