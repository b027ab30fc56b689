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
    socket: TcpListener,
    /// Each worker's own handle, until it takes it.
    entrances: Vec<Mutex<Option<TcpListener>>>,
    door: Arc<Door>,
    closed: CancellationToken,
}

/// What one worker needs of an open listener.
#[derive(Debug)]
pub(super) struct Entrance {
    pub(super) socket: TcpListener,
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
        let sockets = set.open.iter();
        sockets
            .map(|open| Ok((open.name.clone(), open.socket.try_clone()?)))
            .collect()
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
        listener.socket.set_nonblocking(true)?;
        let entrances = (0..workers).map(|_| Ok(Mutex::new(Some(listener.socket.try_clone()?))));
        Ok(Self {
            entrances: entrances.collect::<io::Result<_>>()?,
            name: listener.name.clone(),
            door: Arc::new(Door::new(&listener)),
            socket: listener.socket,
            closed: CancellationToken::new(),
        })
    }

    fn entrance(&self, worker: usize) -> Option<Entrance> {
        let entrance = self.entrances.get(worker)?;
        let socket = entrance
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()?;
        Some(Entrance {
            socket,
            door: self.door.clone(),
            closed: self.closed.clone(),
        })
    }
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
