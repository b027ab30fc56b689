//! The listeners of an engine, opened and closed while it runs.

use std::io;
use std::net::TcpListener;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::accept::Door;
use crate::engine::EngineError;
use crate::listen::{Listener, ListenerKind};

/// What is open. Workers follow it.
#[derive(Debug)]
pub(crate) struct Listeners {
    workers: usize,
    set: watch::Sender<Set>,
}

#[derive(Debug, Default)]
struct Set {
    open: Vec<Arc<Open>>,
    /// Nothing is opened any more.
    is_over: bool,
}

/// An open listener. The sockets close with the last handle, which is when the last worker has stopped accepting: a
/// client that comes later is refused at once instead of waiting for nobody.
#[derive(Debug)]
pub(super) struct Open {
    name: Arc<str>,
    /// To hand them on; none when it is closed.
    sockets: Mutex<Vec<TcpListener>>,
    /// Each worker's own handles, until it takes them. A closed listener stays listed until all have: connections may wait
    /// in a socket that its worker has not seen yet.
    entrances: Vec<Mutex<Option<Vec<TcpListener>>>>,
    door: Arc<Door>,
    closed: CancellationToken,
}

/// What one worker needs of an open listener.
#[derive(Debug)]
pub(super) struct Entrance {
    pub(super) sockets: Vec<TcpListener>,
    pub(super) door: Arc<Door>,
    /// Fires when no more connections are taken in here.
    pub(super) closed: CancellationToken,
}

impl Listeners {
    pub(crate) fn new(workers: usize) -> Self {
        Self {
            workers,
            set: watch::Sender::default(),
        }
    }

    /// Opens one; it takes the place of another of that name.
    pub(crate) fn open(&self, listener: Listener) -> Result<(), EngineError> {
        let name = listener.name.clone();
        let failed = |source| EngineError::Listener { name, source };
        let opened = Arc::new(Open::new(listener, self.workers).map_err(failed)?);
        let mut former = Err(EngineError::Over);
        self.modify(|set| {
            if !set.is_over {
                former = Ok(set.find(&opened.name));
                set.open.push(opened);
            }
        });
        // Only now: there is always somebody who accepts.
        former?.iter().for_each(|former| former.close());
        Ok(())
    }

    /// Closes the one of that name, if there is one; its connections drain.
    pub(crate) fn close(&self, name: &str) -> bool {
        let former = self.set.borrow().find(name);
        let Some(former) = former else {
            return false;
        };
        former.close();
        self.modify(|_| {});
        true
    }

    /// Closes all, for good.
    pub(super) fn end(&self) {
        self.modify(|set| {
            set.is_over = true;
            set.open.iter().for_each(|open| open.close());
        });
    }

    /// Forgets what no worker has come to take.
    pub(super) fn forget(&self) {
        self.modify(|set| set.open.clear());
    }

    fn modify(&self, change: impl FnOnce(&mut Set)) {
        let is_followed = self.set.receiver_count() > 0;
        self.set.send_modify(|set| {
            change(set);
            set.open
                .retain(|open| !open.is_closed() || is_followed && open.is_awaited());
        });
    }

    /// Other handles of all sockets, by what their connections mean.
    pub(crate) fn sockets(&self) -> io::Result<Vec<(ListenerKind, TcpListener)>> {
        let set = self.set.borrow();
        let each = |open: &Arc<Open>| {
            let kind = open.door.kind();
            let socket = move |socket: &TcpListener| Ok((kind, socket.try_clone()?));
            lock(&open.sockets).iter().map(socket).collect::<Vec<_>>()
        };
        set.open.iter().flat_map(each).collect()
    }

    pub(super) fn follow(&self, worker: usize) -> Followed {
        Followed {
            worker,
            set: self.set.subscribe(),
        }
    }
}

impl Set {
    fn find(&self, name: &str) -> Option<Arc<Open>> {
        let is_it = |open: &&Arc<Open>| *open.name == *name && !open.is_closed();
        self.open.iter().find(is_it).cloned()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Open {
    fn new(listener: Listener, workers: usize) -> io::Result<Self> {
        let Listener { name, sockets, .. } = &listener;
        let mut entrances: Vec<Vec<TcpListener>> = (0..workers).map(|_| Vec::new()).collect();
        for (worker, socket) in pairs(workers, sockets.len()) {
            sockets[socket].set_nonblocking(true)?;
            entrances[worker].push(sockets[socket].try_clone()?);
        }
        let entrances = entrances.into_iter().map(|own| Mutex::new(Some(own)));
        Ok(Self {
            name: name.clone(),
            entrances: entrances.collect(),
            door: Arc::new(Door::new(&listener)),
            sockets: Mutex::new(listener.sockets),
            closed: CancellationToken::new(),
        })
    }

    fn close(&self) {
        lock(&self.sockets).clear();
        self.closed.cancel();
    }

    fn is_closed(&self) -> bool {
        self.closed.is_cancelled()
    }

    /// Whether a worker has not come for it yet.
    fn is_awaited(&self) -> bool {
        self.entrances.iter().any(|own| lock(own).is_some())
    }

    fn entrance(&self, worker: usize) -> Option<Entrance> {
        let sockets = lock(self.entrances.get(worker)?).take()?;
        Some(Entrance {
            sockets,
            door: self.door.clone(),
            closed: self.closed.clone(),
        })
    }
}

/// Which worker attends which socket: everybody has one, and every one has somebody. The kernel may have put connections
/// into any of them.
fn pairs(workers: usize, sockets: usize) -> impl Iterator<Item = (usize, usize)> {
    let count = if sockets == 0 {
        0
    } else {
        workers.max(sockets)
    };
    (0..count).map(move |index| (index % workers, index % sockets))
}

/// The set as one worker sees it.
#[derive(Debug)]
pub(super) struct Followed {
    worker: usize,
    set: watch::Receiver<Set>,
}

impl Followed {
    /// Entrances that this worker has not seen yet. Waits for one; empty: there will be none.
    pub(super) async fn next(&mut self) -> Vec<Entrance> {
        loop {
            {
                let set = self.set.borrow_and_update();
                let open = set.open.iter();
                let new: Vec<Entrance> =
                    open.filter_map(|open| open.entrance(self.worker)).collect();
                if !new.is_empty() || set.is_over {
                    return new;
                }
            }
            if self.set.changed().await.is_err() {
                return Vec::new();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::pairs;

    #[test]
    fn every_socket_is_attended() {
        let check = |workers, sockets, expected: &[(usize, usize)]| {
            let found: Vec<_> = pairs(workers, sockets).collect();
            assert_eq!(found, expected, "{workers} workers, {sockets} sockets");
        };
        check(2, 1, &[(0, 0), (1, 0)]);
        check(2, 2, &[(0, 0), (1, 1)]);
        check(2, 3, &[(0, 0), (1, 1), (0, 2)]);
        check(3, 2, &[(0, 0), (1, 1), (2, 0)]);
        check(1, 0, &[]);
    }
}
