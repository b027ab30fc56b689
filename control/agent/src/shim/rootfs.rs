//! The container's root file system, mounted where only this shim and its container see it: when they end, the kernel
//! takes the mount away.

use std::fs::{self, File};
use std::io;
use std::os::fd::IntoRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use nix::mount::{MsFlags, mount as mount_at};
use nix::sched::{CloneFlags, unshare};
use rustix::fs::{FlockOperation, flock};

use super::files::{self, ShimConfig};

/// Mounts the image's layers with a writable one above, at `dir/rootfs`.
pub(super) fn mount(dir: &Path, config: &ShimConfig) -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    // Mounts made outside later (volumes) still come in; ours do not go out.
    mount_at(
        None::<&str>,
        "/",
        None::<&str>,
        MsFlags::MS_REC | MsFlags::MS_SLAVE,
        None::<&str>,
    )?;
    for layer in &config.layers {
        keep(&config.layers_dir.join(layer))?;
    }
    let rootfs = dir.join(files::ROOTFS);
    let upper = config.writable.join("upper");
    let work = config.writable.join("work");
    for folder in [&rootfs, &upper, &work] {
        fs::create_dir_all(folder)?;
    }
    match overlay(config, &rootfs, &upper, &work) {
        Ok(()) => Ok(()),
        // No overlayfs, or none on this file system: a copy does the same, only slower.
        Err(_) => {
            merge(config, &upper)?;
            bind(&upper, &rootfs)
        }
    }
}

/// Holds a shared lock on the layer for as long as this process lives: nobody removes it under us.
fn keep(layer: &Path) -> io::Result<()> {
    let dir = File::open(layer)?;
    flock(&dir, FlockOperation::NonBlockingLockShared)?;
    // Left open on purpose until the process ends.
    let _ = dir.into_raw_fd();
    Ok(())
}

fn overlay(config: &ShimConfig, rootfs: &Path, upper: &Path, work: &Path) -> io::Result<()> {
    // Relative names keep the options inside their one page.
    let before = std::env::current_dir()?;
    std::env::set_current_dir(&config.layers_dir)?;
    let lower: Vec<&str> = config.layers.iter().rev().map(String::as_str).collect();
    let mut options = format!(
        "lowerdir={},upperdir={},workdir={}",
        lower.join(":"),
        escape(upper),
        escape(work)
    );
    if in_user_namespace() {
        options.push_str(",userxattr");
    }
    let mounted = mount_at(
        Some("overlay"),
        rootfs,
        Some("overlay"),
        MsFlags::empty(),
        Some(options.as_str()),
    );
    std::env::set_current_dir(before)?;
    Ok(mounted?)
}

/// Options are separated by commas, layers by colons.
fn escape(path: &Path) -> String {
    path.to_string_lossy()
        .replace('\\', "\\\\")
        .replace(',', "\\,")
        .replace(':', "\\:")
}

/// Whether root here is not the machine's root.
pub(crate) fn in_user_namespace() -> bool {
    fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| {
        map.split_ascii_whitespace().collect::<Vec<_>>() != ["0", "0", "4294967295"]
    })
}

fn bind(from: &Path, to: &Path) -> io::Result<()> {
    Ok(mount_at(
        Some(from),
        to,
        None::<&str>,
        MsFlags::MS_BIND | MsFlags::MS_REC,
        None::<&str>,
    )?)
}

/// Copies all layers into one folder. Done once: a marker says so, since a container that is started again keeps it.
fn merge(config: &ShimConfig, target: &Path) -> io::Result<()> {
    let done = config.writable.join("merged");
    if done.exists() {
        return Ok(());
    }
    for layer in &config.layers {
        copy_layer(&config.layers_dir.join(layer), target)?;
    }
    File::create(done).map(drop)
}

fn copy_layer(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let meta = entry.metadata()?;
        let kind = meta.file_type();
        let source = entry.path();
        let target = to.join(entry.file_name());
        if kind.is_dir() {
            if is_opaque(&source) {
                remove(&target)?;
            }
            if !fs::symlink_metadata(&target).is_ok_and(|known| known.is_dir()) {
                remove(&target)?;
                fs::create_dir(&target)?;
            }
            copy_layer(&source, &target)?;
            fs::set_permissions(&target, meta.permissions())?;
        } else {
            remove(&target)?;
            if kind.is_char_device() && meta.rdev() == 0 {
                // A whiteout: what it hides is removed, and that was it.
                continue;
            } else if kind.is_symlink() {
                std::os::unix::fs::symlink(fs::read_link(&source)?, &target)?;
            } else if kind.is_file() {
                fs::copy(&source, &target)?;
            } else {
                continue;
            }
        }
        match std::os::unix::fs::lchown(&target, Some(meta.uid()), Some(meta.gid())) {
            Err(error) if error.kind() != io::ErrorKind::PermissionDenied => return Err(error),
            _ => {}
        }
        if kind.is_file() {
            // A change of owner clears set-user-ID.
            fs::set_permissions(&target, meta.permissions())?;
        }
    }
    Ok(())
}

fn is_opaque(dir: &Path) -> bool {
    ["trusted.overlay.opaque", "user.overlay.opaque"]
        .iter()
        .any(|name| {
            let mut value = [0_u8; 1];
            rustix::fs::getxattr(dir, *name, &mut value)
                .is_ok_and(|read| read == 1 && value[0] == b'y')
        })
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}
