//! Tells when images were loaded, by whichever process.

use std::io;
use std::mem::MaybeUninit;

use rustix::fs::inotify;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{ImageStore, index};

/// Bytes read at once from the kernel's queue; one event with its file name is at most 272.
const EVENTS_BYTES: usize = 4096;

/// Raises a count whenever the store's index was replaced. The task ends with `shutdown` or its last receiver.
pub fn watch_index(
    store: &ImageStore,
    shutdown: CancellationToken,
) -> io::Result<(watch::Receiver<u64>, impl Future<Output = ()> + use<>)> {
    let queue = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
    inotify::add_watch(&queue, store.dir.as_path(), inotify::WatchFlags::MOVED_TO)?;
    let queue = crate::sys::readable(queue)?;
    let (changes, changed) = watch::channel(0_u64);
    let task = async move {
        loop {
            let ready = tokio::select! {
                () = shutdown.cancelled() => return,
                () = changes.closed() => return,
                ready = queue.readable() => ready,
            };
            let Ok(mut ready) = ready else { return };
            if index_replaced(&queue) {
                changes.send_modify(|count| *count += 1);
            }
            ready.clear_ready();
        }
    };
    Ok((changed, task))
}

/// Empties the queue; whether the index was among what changed.
fn index_replaced(queue: &AsyncFd<std::os::fd::OwnedFd>) -> bool {
    let mut bytes = [MaybeUninit::uninit(); EVENTS_BYTES];
    let mut events = inotify::Reader::new(queue.get_ref(), &mut bytes);
    let mut replaced = false;
    // Ends with WouldBlock once the queue is empty.
    while let Ok(event) = events.next() {
        let name = event.file_name().map(|name| name.to_bytes());
        // A queue that overflowed may have lost the one that matters.
        replaced |= name.is_none_or(|name| name == index::FILE.as_bytes());
    }
    replaced
}
