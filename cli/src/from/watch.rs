//! Tells when files changed and whoever changed them is through with it.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ffi::{OsStr, OsString};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use rustix::fs::inotify::{self, ReadFlags, WatchFlags};
use tokio::io::Interest as Readiness;
use tokio::io::unix::AsyncFd;
use tokio::time::Instant;

use super::files::{Watcher, is_manifest};

/// So long nothing more must come: several files are seldom changed in one system call.
const QUIET: Duration = Duration::from_millis(50);
/// So long at most a file that is being written, or one change after the other, holds up the rest.
const PATIENCE: Duration = Duration::from_secs(1);
/// Bytes read at once from the kernel's queue; one event with its file name is at most 272.
const EVENTS_BYTES: usize = 16 * 1024;

const EVENTS: WatchFlags = WatchFlags::ATTRIB
    .union(WatchFlags::MODIFY)
    .union(WatchFlags::CLOSE_WRITE)
    .union(WatchFlags::CREATE)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVE)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF);

/// The folders that matter, and what in them.
#[derive(Debug)]
pub(super) struct Watch {
    queue: AsyncFd<OwnedFd>,
    folders: BTreeMap<i32, Interest>,
    /// Files that somebody has written to and not closed yet.
    open: HashSet<(i32, OsString)>,
}

#[derive(Debug, Default)]
struct Interest {
    /// Every manifest, and every folder that comes.
    all: bool,
    names: BTreeSet<OsString>,
}

/// What is to be watched from now on, collected while it is read.
pub(super) struct Renewal<'w> {
    watch: &'w mut Watch,
    folders: BTreeMap<i32, Interest>,
    /// Folders that cannot be watched, and why.
    pub(super) failed: BTreeMap<PathBuf, String>,
}

impl Watch {
    pub(super) fn new() -> anyhow::Result<Self> {
        let queue = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)
            .context("cannot watch files")?;
        Ok(Self {
            queue: registered(queue).context("cannot watch files")?,
            folders: BTreeMap::new(),
            open: HashSet::new(),
        })
    }

    pub(super) fn renew(&mut self) -> Renewal<'_> {
        Renewal {
            watch: self,
            folders: BTreeMap::new(),
            failed: BTreeMap::new(),
        }
    }

    /// Returns when something changed and nobody is at it any more.
    pub(super) async fn changed(&mut self) {
        while !self.disturbed() {
            self.readable().await;
        }
        self.settled().await;
    }

    /// Returns when nothing changes any more.
    pub(super) async fn settled(&mut self) {
        let latest = Instant::now() + PATIENCE;
        loop {
            let quiet = Instant::now() + QUIET;
            let disturbed = async {
                while !self.disturbed() {
                    self.readable().await;
                }
            };
            let calm = tokio::time::timeout_at(quiet, disturbed).await.is_err();
            let now = Instant::now();
            if (calm && self.open.is_empty()) || now >= latest {
                // Whoever still has a file open will close it, and that is an event.
                self.open.clear();
                return;
            }
        }
    }

    async fn readable(&self) {
        match self.queue.readable().await {
            Ok(mut ready) => ready.clear_ready(),
            // Without the queue nothing changes for us any more; SIGHUP still does.
            Err(_) => std::future::pending().await,
        }
    }

    /// Whether something that matters has happened since the last time anybody asked.
    pub(super) fn disturbed(&mut self) -> bool {
        let mut bytes = [MaybeUninit::uninit(); EVENTS_BYTES];
        let mut events = inotify::Reader::new(self.queue.get_ref(), &mut bytes);
        let mut disturbed = false;
        // Ends with WouldBlock once the queue is empty.
        while let Ok(event) = events.next() {
            let name = event
                .file_name()
                .map(|name| OsStr::from_bytes(name.to_bytes()));
            let flags = event.events();
            if !matters(&self.folders, event.wd(), name, flags) {
                continue;
            }
            disturbed = true;
            let Some(name) = name else { continue };
            let file = (event.wd(), name.to_owned());
            match flags.contains(ReadFlags::MODIFY) {
                true => drop(self.open.insert(file)),
                false => drop(self.open.remove(&file)),
            }
        }
        disturbed
    }
}

#[expect(
    unsafe_code,
    reason = "an OwnedFd is open, always answers with the same descriptor, and is owned by the AsyncFd from here on"
)]
fn registered(queue: OwnedFd) -> std::io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: see the reason above.
    unsafe { AsyncFd::register_with_interest(queue, Readiness::READABLE) }
        .map_err(std::io::Error::from)
}

fn matters(
    folders: &BTreeMap<i32, Interest>,
    folder: i32,
    name: Option<&OsStr>,
    flags: ReadFlags,
) -> bool {
    // What was lost may have mattered.
    if flags.contains(ReadFlags::QUEUE_OVERFLOW) {
        return true;
    }
    let Some(interest) = folders.get(&folder) else {
        return false;
    };
    // The folder itself; that its watch ended says nothing new.
    let Some(name) = name else {
        return !flags.contains(ReadFlags::IGNORED);
    };
    if interest.names.contains(name) {
        return true;
    }
    let hidden = name.as_bytes().starts_with(b".");
    let written = flags.intersects(ReadFlags::MODIFY | ReadFlags::CLOSE_WRITE | ReadFlags::ATTRIB);
    // A folder, or a link to one, may have any name; that a file of another name is written to is no news.
    interest.all && !hidden && (is_manifest(Path::new(name)) || !written)
}

impl Watcher for Renewal<'_> {
    fn folder(&mut self, folder: &Path) {
        if let Some(interest) = self.interest(folder) {
            interest.all = true;
        }
    }

    fn name(&mut self, folder: &Path, name: &OsStr) {
        if let Some(interest) = self.interest(folder) {
            interest.names.insert(name.to_owned());
        }
    }
}

impl Renewal<'_> {
    fn interest(&mut self, folder: &Path) -> Option<&mut Interest> {
        match inotify::add_watch(self.watch.queue.get_ref(), folder, EVENTS) {
            Ok(watch) => Some(self.folders.entry(watch).or_default()),
            Err(error) => {
                self.failed.insert(folder.to_owned(), error.to_string());
                None
            }
        }
    }

    /// From now on this and nothing else is watched. Whether something has changed meanwhile.
    pub(super) fn done(self) -> bool {
        let before = std::mem::replace(&mut self.watch.folders, self.folders);
        for gone in before
            .keys()
            .filter(|id| !self.watch.folders.contains_key(id))
        {
            // The folder itself may be gone, and its watch with it.
            let _ = inotify::remove_watch(self.watch.queue.get_ref(), *gone);
        }
        self.watch.disturbed()
    }
}
