//! The listeners of an engine, opened and closed while it runs.

use std::io;
use std::net::TcpListener;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::accept::Door;
use crate::engine::EngineError;
use crate::listen::Listener;

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
    sockets: Vec<TcpListener>,
    /// Each worker's own handles, until it takes them.
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
        self.set.send_if_modified(|set| {
            if set.is_over {
                return false;
            }
            former = Ok(set.remove(&opened.name));
            set.open.push(opened);
            true
        });
        // Only now: there is always somebody who accepts.
        former?.iter().for_each(|former| former.closed.cancel());
        Ok(())
    }

    /// Closes the one of that name, if there is one; its connections drain.
    pub(crate) fn close(&self, name: &str) -> bool {
        let mut former = None;
        self.set.send_if_modified(|set| {
            former = set.remove(name);
            former.is_some()
        });
        former.inspect(|former| former.closed.cancel()).is_some()
    }

    /// Closes all, for good.
    pub(super) fn end(&self) {
        let former = self.set.send_replace(Set {
            open: Vec::new(),
            is_over: true,
        });
        former.open.iter().for_each(|former| former.closed.cancel());
    }

    /// Other handles of all sockets.
    pub(crate) fn sockets(&self) -> io::Result<Vec<(Arc<str>, TcpListener)>> {
        let set = self.set.borrow();
        let each = |open: &Arc<Open>| {
            let name = open.name.clone();
            let socket = move |socket: &TcpListener| Ok((name.clone(), socket.try_clone()?));
            open.sockets.iter().map(socket).collect::<Vec<_>>()
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
    fn remove(&mut self, name: &str) -> Option<Arc<Open>> {
        let index = self.open.iter().position(|open| *open.name == *name)?;
        Some(self.open.swap_remove(index))
    }
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
            sockets: listener.sockets,
            closed: CancellationToken::new(),
        })
    }

    fn entrance(&self, worker: usize) -> Option<Entrance> {
        let entrance = self.entrances.get(worker)?;
        let sockets = entrance
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()?;
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
