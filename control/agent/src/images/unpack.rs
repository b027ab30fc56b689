//! One layer's tar into a folder, in the form overlayfs reads. The content is not trusted: every entry's parent is
//! resolved by the kernel inside the folder, links are never followed on the way out, and whatever overlayfs itself
//! gives a meaning to is made only from whiteouts, never taken over.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;

use super::ImageError;

/// Entries of one layer.
const ENTRIES_MAX: usize = 1_000_000;
const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Extended attributes that overlayfs reads as commands.
const OVERLAY_XATTRS: [&str; 2] = ["trusted.overlay.", "user.overlay."];

/// Unpacks the layer `name` into the empty folder `dir`.
pub(super) fn unpack(reader: impl Read, dir: &Path, name: &str) -> Result<(), ImageError> {
    let root = open_dir(CWD, dir.as_os_str(), ResolveFlags::empty())
        .map_err(io::Error::from)
        .map_err(ImageError::file("opening", dir))?;
    let mut layer = Layer { root, name };
    let mut archive = tar::Archive::new(reader);
    let entries = archive
        .entries()
        .map_err(|source| layer.failed("", source))?;
    for (count, entry) in entries.enumerate() {
        let mut entry = entry.map_err(|source| layer.failed("", source))?;
        let shown = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        if count >= ENTRIES_MAX {
            return Err(layer.refused(&shown, "is one too many: a layer may have a million"));
        }
        let path = entry
            .path()
            .map_err(|source| layer.failed(&shown, source))?
            .into_owned();
        let Some(place) = Place::of(&path) else {
            return Err(layer.refused(&shown, "leads outside of the layer"));
        };
        layer
            .add(&mut entry, &place)
            .map_err(|source| layer.failed(&shown, source))?;
    }
    Ok(())
}

/// Where an entry goes: parent and name. The root itself has no name.
struct Place {
    parent: PathBuf,
    name: OsString,
}

impl Place {
    fn of(path: &Path) -> Option<Place> {
        let mut clean = PathBuf::new();
        for part in path.components() {
            match part {
                Component::Normal(name) => clean.push(name),
                Component::CurDir | Component::RootDir => {}
                Component::ParentDir | Component::Prefix(_) => return None,
            }
        }
        let name = clean.file_name().unwrap_or_default().to_owned();
        clean.pop();
        Some(Place {
            parent: clean,
            name,
        })
    }
}

struct Layer<'a> {
    root: OwnedFd,
    name: &'a str,
}

impl Layer<'_> {
    fn failed(&self, entry: &str, source: io::Error) -> ImageError {
        ImageError::Unpack {
            layer: self.name.to_owned(),
            entry: entry.to_owned(),
            source,
        }
    }

    fn refused(&self, entry: &str, why: &'static str) -> ImageError {
        ImageError::Entry {
            layer: self.name.to_owned(),
            entry: entry.to_owned(),
            why,
        }
    }

    fn add<R: Read>(&mut self, entry: &mut tar::Entry<'_, R>, place: &Place) -> io::Result<()> {
        let kind = entry.header().entry_type();
        if place.name.is_empty() {
            // The root: its mode counts, its name does not.
            return self.finish(entry, &self.root, OsStr::new("."), kind);
        }
        let parent = self.parent(&place.parent)?;
        let name = place.name.as_bytes();
        if name == OPAQUE {
            return set_opaque(&parent);
        }
        if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            let hidden = OsStr::from_bytes(hidden);
            if hidden.is_empty() || hidden == "." || hidden == ".." {
                return Err(io::Error::other("a whiteout of nothing"));
            }
            clear(&parent, hidden)?;
            rustix::fs::mknodat(&parent, hidden, FileType::CharacterDevice, Mode::empty(), 0)?;
            return Ok(());
        }
        if self.make(entry, &parent, &place.name, kind)? {
            self.finish(entry, &parent, &place.name, kind)?;
        }
        Ok(())
    }

    /// Opens the parent folder, making what is missing. The kernel keeps the walk inside the layer.
    fn parent(&self, path: &Path) -> io::Result<OwnedFd> {
        let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let shown = if path.as_os_str().is_empty() {
            Path::new(".")
        } else {
            path
        };
        match open_dir(&self.root, shown.as_os_str(), inside) {
            Err(Errno::NOENT) => {}
            other => return Ok(other?),
        }
        let mut so_far = PathBuf::new();
        for part in path.components() {
            let above = if so_far.as_os_str().is_empty() {
                PathBuf::from(".")
            } else {
                so_far.clone()
            };
            so_far.push(part);
            match open_dir(&self.root, so_far.as_os_str(), inside) {
                Err(Errno::NOENT) => {
                    let above = open_dir(&self.root, above.as_os_str(), inside)?;
                    rustix::fs::mkdirat(&above, part.as_os_str(), Mode::from_raw_mode(0o755))?;
                }
                other => drop(other?),
            }
        }
        Ok(open_dir(&self.root, shown.as_os_str(), inside)?)
    }

    /// Makes the entry itself; whether it is there to get its owner and mode.
    fn make<R: Read>(
        &self,
        entry: &mut tar::Entry<'_, R>,
        parent: &OwnedFd,
        name: &OsStr,
        kind: tar::EntryType,
    ) -> io::Result<bool> {
        match kind {
            tar::EntryType::Directory => {
                match rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o755)) {
                    Err(Errno::EXIST) if is_dir(parent, name)? => {}
                    Err(Errno::EXIST) => {
                        clear(parent, name)?;
                        rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o755))?;
                    }
                    other => other?,
                }
            }
            tar::EntryType::Regular | tar::EntryType::Continuous | tar::EntryType::GNUSparse => {
                clear(parent, name)?;
                let flags = OFlags::WRONLY
                    | OFlags::CREATE
                    | OFlags::EXCL
                    | OFlags::NOFOLLOW
                    | OFlags::CLOEXEC;
                let file = rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(0o600))?;
                io::copy(entry, &mut std::fs::File::from(file))?;
            }
            tar::EntryType::Symlink => {
                let target = entry.link_name_bytes().unwrap_or_default();
                clear(parent, name)?;
                rustix::fs::symlinkat(OsStr::from_bytes(&target), parent, name)?;
            }
            tar::EntryType::Link => {
                let target = entry.link_name()?.unwrap_or_default();
                let place = Place::of(&target)
                    .ok_or_else(|| io::Error::other("a link that leads outside of the layer"))?;
                let from = self.parent(&place.parent)?;
                clear(parent, name)?;
                rustix::fs::linkat(&from, &place.name, parent, name, AtFlags::empty())?;
                // It has owner and mode of what it links to.
                return Ok(false);
            }
            tar::EntryType::Char | tar::EntryType::Block | tar::EntryType::Fifo => {
                clear(parent, name)?;
                return make_special(entry, parent, name, kind);
            }
            // Headers that describe others were consumed by the reader; what is left has no file.
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Owner, mode, attributes and time.
    fn finish<R: Read>(
        &self,
        entry: &mut tar::Entry<'_, R>,
        parent: &OwnedFd,
        name: &OsStr,
        kind: tar::EntryType,
    ) -> io::Result<()> {
        let uid = number(entry.header().uid());
        let gid = number(entry.header().gid());
        let owner = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        match rustix::fs::chownat(parent, name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW) {
            // Without root, or where the user is not mapped, everything belongs to whoever unpacks.
            Ok(()) | Err(Errno::PERM | Errno::INVAL) => {}
            Err(error) => return Err(error.into()),
        }
        if kind == tar::EntryType::Symlink {
            return Ok(());
        }
        // After the owner: a change of owner clears set-user-ID.
        let mode = Mode::from_raw_mode(entry.header().mode()? & 0o7777);
        rustix::fs::chmodat(parent, name, mode, AtFlags::empty())?;
        set_xattrs(entry, parent, name)?;
        if kind != tar::EntryType::Directory {
            let time = Timespec {
                tv_sec: i64::from(number(entry.header().mtime())),
                tv_nsec: 0,
            };
            let times = Timestamps {
                last_access: time,
                last_modification: time,
            };
            rustix::fs::utimensat(parent, name, &times, AtFlags::SYMLINK_NOFOLLOW)?;
        }
        Ok(())
    }
}

/// A field that some tools leave empty.
fn number(field: io::Result<u64>) -> u32 {
    field
        .ok()
        .and_then(|number| u32::try_from(number).ok())
        .unwrap_or(0)
}

fn make_special<R: Read>(
    entry: &tar::Entry<'_, R>,
    parent: &OwnedFd,
    name: &OsStr,
    kind: tar::EntryType,
) -> io::Result<bool> {
    let header = entry.header();
    let major = header.device_major()?.unwrap_or(0);
    let minor = header.device_minor()?.unwrap_or(0);
    if kind == tar::EntryType::Char && major == 0 && minor == 0 {
        // To overlayfs this is a whiteout; layers say that by name.
        return Ok(false);
    }
    let file_type = match kind {
        tar::EntryType::Char => FileType::CharacterDevice,
        tar::EntryType::Block => FileType::BlockDevice,
        _ => FileType::Fifo,
    };
    let device = rustix::fs::makedev(major, minor);
    match rustix::fs::mknodat(parent, name, file_type, Mode::from_raw_mode(0o600), device) {
        Ok(()) => Ok(true),
        // Without root there are no devices; containers get their own /dev anyway.
        Err(Errno::PERM) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn open_dir(
    at: impl std::os::fd::AsFd,
    path: &OsStr,
    resolve: ResolveFlags,
) -> Result<OwnedFd, Errno> {
    rustix::fs::openat2(
        at,
        path,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
        resolve,
    )
}

fn is_dir(parent: &OwnedFd, name: &OsStr) -> io::Result<bool> {
    let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

/// Removes what an earlier entry of the same name left.
fn clear(parent: &OwnedFd, name: &OsStr) -> io::Result<()> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::ISDIR) => Ok(std::fs::remove_dir_all(through_fd(parent, name))?),
        Err(error) => Err(error.into()),
    }
}

/// A path that leads to `name` in the open folder, for calls that take only paths.
fn through_fd(parent: &OwnedFd, name: &OsStr) -> PathBuf {
    use std::os::fd::AsRawFd;
    let mut path = PathBuf::from(format!("/proc/self/fd/{}", parent.as_raw_fd()));
    path.push(name);
    path
}

fn set_opaque(dir: &OwnedFd) -> io::Result<()> {
    // Which of the two overlayfs reads depends on who mounts: root reads trusted, a user namespace user.
    let user = rustix::fs::fsetxattr(dir, "user.overlay.opaque", b"y", XattrFlags::empty());
    match rustix::fs::fsetxattr(dir, "trusted.overlay.opaque", b"y", XattrFlags::empty()) {
        Ok(()) => Ok(()),
        Err(Errno::PERM | Errno::OPNOTSUPP) => Ok(user?),
        Err(error) => Err(error.into()),
    }
}

fn set_xattrs<R: Read>(
    entry: &mut tar::Entry<'_, R>,
    parent: &OwnedFd,
    name: &OsStr,
) -> io::Result<()> {
    let Some(extensions) = entry.pax_extensions()? else {
        return Ok(());
    };
    for extension in extensions {
        let extension = extension?;
        let Some(key) = extension
            .key()
            .ok()
            .and_then(|key| key.strip_prefix("SCHILY.xattr."))
        else {
            continue;
        };
        if OVERLAY_XATTRS.iter().any(|prefix| key.starts_with(prefix)) {
            continue;
        }
        let path = through_fd(parent, name);
        match rustix::fs::lsetxattr(path, key, extension.value_bytes(), XattrFlags::empty()) {
            // Some need rights or a file system that we may not have; images live without them.
            Ok(()) | Err(Errno::PERM | Errno::OPNOTSUPP | Errno::INVAL) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
