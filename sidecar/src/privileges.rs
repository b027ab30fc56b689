//! Giving up what only the start needs.

use meshgate_api::names::{SIDECAR_MARK, SIDECAR_UID};
use nix::errno::Errno;
use nix::sys::prctl;
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use tracing::{info, warn};

/// How the redirect tells this process' own packets from the application's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OwnTraffic {
    /// By the user it runs as; it has no capability left.
    ByUser,
    /// By a firewall mark, where that user does not exist (a rootless cluster maps no second one).
    ByMark,
}

impl OwnTraffic {
    /// The mark to put on every socket, if that is how.
    pub(crate) fn mark(self) -> Option<u32> {
        match self {
            Self::ByUser => None,
            Self::ByMark => Some(SIDECAR_MARK),
        }
    }
}

/// Gives up huge pages: with them each touched corner of the heap counts for 2 MiB, ten times what a sidecar uses.
pub(crate) fn use_small_pages() {
    if let Err(errno) = prctl::set_thp_disable(true) {
        warn!(
            reason = errno.desc(),
            "cannot give up huge pages; memory use will be higher"
        );
    }
}

/// Becomes the sidecar's user on every thread of the process, without capabilities and without a way to get new ones.
pub(crate) fn drop_root() -> Result<OwnTraffic, Errno> {
    prctl::set_no_new_privs()?;
    let user = Uid::from_raw(SIDECAR_UID);
    if Uid::effective() == user {
        return Ok(OwnTraffic::ByUser);
    }
    if !Uid::effective().is_root() {
        return Err(Errno::EPERM);
    }
    let group = Gid::from_raw(SIDECAR_UID);
    let became = setgroups(&[])
        .and_then(|()| setresgid(group, group, group))
        .and_then(|()| setresuid(user, user, user));
    match became {
        Ok(()) => {
            info!(uid = SIDECAR_UID, "running without privileges");
            Ok(OwnTraffic::ByUser)
        }
        // Not mapped in this user namespace (EINVAL), or group changes are barred in it (EPERM).
        Err(errno @ (Errno::EINVAL | Errno::EPERM)) => {
            warn!(
                uid = SIDECAR_UID,
                reason = errno.desc(),
                "cannot change the user; own packets are told by their mark"
            );
            Ok(OwnTraffic::ByMark)
        }
        Err(errno) => Err(errno),
    }
}
