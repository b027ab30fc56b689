//! A log as a stream: what is there, and for a container that runs, what comes.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures::Stream;
use rustix::fs::inotify;
use tokio::io::unix::AsyncFd;

use super::lines::{Wanted, show};
use crate::container::Running;
use crate::sys;

/// Bytes read from a file at once.
const READ_BYTES: usize = 32 << 10;

/// What is wanted of which log.
pub(super) struct Source {
    pub(super) log: PathBuf,
    pub(super) wanted: Wanted,
    pub(super) limit_bytes: Option<u64>,
}

/// Reads `files` from `start`, then, while `running`, whatever is written to the last.
pub(super) fn stream(
    source: Source,
    files: Vec<PathBuf>,
    start: (usize, u64),
    running: Option<Running>,
) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    let reader = Reader {
        limit: source.limit_bytes.unwrap_or(u64::MAX),
        changes: running.as_ref().and_then(|_| watch(&source.log).ok()),
        source,
        todo: files.into_iter().skip(start.0).collect(),
        offset: start.1,
        file: None,
        started: Vec::new(),
        fresh: true,
        running,
    };
    futures::stream::unfold(reader, |mut reader| async move {
        match reader.next().await {
            Ok(Some(bytes)) => Some((Ok(bytes), reader)),
            Ok(None) => None,
            Err(error) => {
                reader.limit = 0;
                Some((Err(error), reader))
            }
        }
    })
}

struct Reader {
    source: Source,
    /// Files still to be read, oldest first.
    todo: std::collections::VecDeque<PathBuf>,
    /// Where to start in the next file.
    offset: u64,
    file: Option<File>,
    /// A line that has not ended yet.
    started: Vec<u8>,
    fresh: bool,
    /// Bytes that may still be sent.
    limit: u64,
    running: Option<Running>,
    changes: Option<AsyncFd<OwnedFd>>,
}

impl Reader {
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            if self.limit == 0 {
                return Ok(None);
            }
            if self.file.is_none() && !self.open_next()? {
                return Ok(None);
            }
            let shown = self.read()?;
            if let Some(shown) = shown {
                if !shown.is_empty() {
                    return Ok(Some(self.limited(shown)));
                }
                continue;
            }
            // The end of a file. A later one takes over; the last may grow.
            if !self.todo.is_empty() || self.was_rotated() {
                self.file = None;
                continue;
            }
            if !self.wait().await {
                return Ok(None);
            }
        }
    }

    fn open_next(&mut self) -> io::Result<bool> {
        while let Some(path) = self.todo.pop_front() {
            let offset = std::mem::take(&mut self.offset);
            match File::open(&path) {
                Ok(mut file) => {
                    file.seek(SeekFrom::Start(offset))?;
                    self.file = Some(file);
                    return Ok(true);
                }
                // Rotated away while we read others.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }

    /// The next lines of the open file, or `None` at its end.
    fn read(&mut self) -> io::Result<Option<Vec<u8>>> {
        let Some(file) = &mut self.file else {
            return Ok(None);
        };
        let mut buffer = vec![0; READ_BYTES];
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok(None);
        }
        let mut out = Vec::with_capacity(read);
        for piece in buffer[..read].split_inclusive(|byte| *byte == b'\n') {
            self.started.extend_from_slice(piece);
            if let Some(line) = self.started.strip_suffix(b"\n") {
                show(line, &self.source.wanted, &mut self.fresh, &mut out);
                self.started.clear();
            }
        }
        Ok(Some(out))
    }

    fn limited(&mut self, mut shown: Vec<u8>) -> Bytes {
        let room = usize::try_from(self.limit).unwrap_or(usize::MAX);
        shown.truncate(room);
        self.limit -= shown.len() as u64;
        Bytes::from(shown)
    }

    /// Whether the log's name leads to another file now; that one is next.
    fn was_rotated(&mut self) -> bool {
        let (Some(file), true) = (&self.file, self.changes.is_some()) else {
            return false;
        };
        let (Ok(open), Ok(named)) = (file.metadata(), std::fs::metadata(&self.source.log)) else {
            return false;
        };
        let rotated = open.ino() != named.ino();
        if rotated {
            self.todo.push_back(self.source.log.clone());
        }
        rotated
    }

    /// Waits for more; whether there may be some.
    async fn wait(&mut self) -> bool {
        let (Some(running), Some(changes)) = (&self.running, &self.changes) else {
            return false;
        };
        let ended = tokio::select! {
            ready = changes.readable() => match ready {
                Ok(mut ready) => {
                    drain(changes);
                    ready.clear_ready();
                    false
                }
                Err(_) => return false,
            },
            _ = running.exited() => true,
        };
        if ended {
            // Once more to the end, then no more waiting.
            self.running = None;
        }
        true
    }
}

/// Changes in the log's folder: written, rotated, made.
fn watch(log: &Path) -> io::Result<AsyncFd<OwnedFd>> {
    let queue = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
    let folder = log.parent().unwrap_or(Path::new("/"));
    let flags =
        inotify::WatchFlags::MODIFY | inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_FROM;
    inotify::add_watch(&queue, folder, flags)?;
    sys::readable(queue)
}

fn drain(queue: &AsyncFd<OwnedFd>) {
    let mut bytes = [MaybeUninit::uninit(); 4096];
    let mut events = inotify::Reader::new(queue.get_ref(), &mut bytes);
    while events.next().is_ok() {}
}
