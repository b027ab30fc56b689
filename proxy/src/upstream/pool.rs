//! The connections to one endpoint. They belong to it: when it goes, they go.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use hyper::client::conn::http2;
use meshgate_routing::Time;
use tokio::sync::Semaphore;

use super::Wire;
use crate::body::RequestBody;
use crate::clock;
use crate::http1::Client;
use crate::service::EndpointLive;
use crate::worker::Tasks;

/// Unused for this long, a connection is closed. Shorter than the 60 s that servers commonly wait, so that requests
/// rarely meet a connection that its server is just closing.
const IDLE_MAX: Duration = Duration::from_secs(30);
/// Streams of one HTTP/2 connection; more open another. The usual limit of servers.
const STREAMS_MAX: u32 = 100;

/// All connections to an endpoint that can take a request.
#[derive(Debug)]
pub(crate) struct Pool {
    inner: Mutex<Inner>,
    /// One HTTP/2 connection is made at a time; the others wait for it and share it.
    pub(super) making: Semaphore,
}

#[derive(Debug, Default)]
struct Inner {
    closed: bool,
    idle: Vec<Idle>,
    shared: Vec<Shared>,
    reaping: bool,
}

/// An HTTP/1 connection between requests.
#[derive(Debug)]
struct Idle {
    client: Box<Client>,
    since: Time,
    worker: usize,
}

/// An HTTP/2 connection.
#[derive(Debug)]
struct Shared {
    sender: http2::SendRequest<RequestBody>,
    streams: Arc<AtomicU32>,
    used: Time,
    wire: Wire,
    worker: usize,
}

/// A stream's place in an HTTP/2 connection.
#[derive(Debug)]
pub(crate) struct StreamPlace(Arc<AtomicU32>);

impl Drop for StreamPlace {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Default for Pool {
    fn default() -> Self {
        Self {
            inner: Mutex::default(),
            making: Semaphore::new(1),
        }
    }
}

impl Pool {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The endpoint is gone: nothing is kept from now on.
    pub(crate) fn close(&self) {
        let mut inner = self.lock();
        inner.closed = true;
        let idle = std::mem::take(&mut inner.idle);
        let shared = std::mem::take(&mut inner.shared);
        drop(inner);
        // Outside the lock: dropping wakes their tasks.
        drop((idle, shared));
    }

    /// An HTTP/1 connection that this worker made and that is ready.
    pub(super) fn take_idle(&self, worker: usize) -> Option<Box<Client>> {
        let mut inner = self.lock();
        let now = clock::now();
        while let Some(position) = inner.idle.iter().rposition(|idle| idle.worker == worker) {
            let idle = inner.idle.swap_remove(position);
            if now.since(idle.since) < IDLE_MAX && idle.client.is_quiet() {
                return Some(idle.client);
            }
        }
        None
    }

    /// Keeps an HTTP/1 connection whose exchange is complete.
    pub(super) fn keep(
        &self,
        client: Box<Client>,
        worker: usize,
        owner: Weak<EndpointLive>,
        tasks: &Tasks,
    ) {
        let mut inner = self.lock();
        if inner.closed {
            return;
        }
        inner.idle.push(Idle {
            client,
            since: clock::now(),
            worker,
        });
        Self::reap_later(&mut inner, owner, tasks);
    }

    /// A place in an HTTP/2 connection that this worker made.
    pub(super) fn share(
        &self,
        wire: Wire,
        worker: usize,
    ) -> Option<(http2::SendRequest<RequestBody>, StreamPlace)> {
        let mut inner = self.lock();
        inner.shared.retain(|shared| !shared.sender.is_closed());
        let shared = inner
            .shared
            .iter_mut()
            .filter(|shared| shared.wire == wire && shared.worker == worker)
            .find(|shared| shared.streams.load(Ordering::Acquire) < STREAMS_MAX)?;
        shared.used = clock::now();
        shared.streams.fetch_add(1, Ordering::AcqRel);
        let place = StreamPlace(shared.streams.clone());
        Some((shared.sender.clone(), place))
    }

    /// Makes a new HTTP/2 connection known and takes the first place in it.
    pub(super) fn add_shared(
        &self,
        sender: http2::SendRequest<RequestBody>,
        wire: Wire,
        worker: usize,
        owner: Weak<EndpointLive>,
        tasks: &Tasks,
    ) -> (http2::SendRequest<RequestBody>, StreamPlace) {
        let streams = Arc::new(AtomicU32::new(1));
        let mut inner = self.lock();
        if !inner.closed {
            inner.shared.push(Shared {
                sender: sender.clone(),
                streams: streams.clone(),
                used: clock::now(),
                wire,
                worker,
            });
            Self::reap_later(&mut inner, owner, tasks);
        }
        (sender, StreamPlace(streams))
    }

    /// One reaper for each pool that holds connections; it ends with the last of them.
    fn reap_later(inner: &mut Inner, owner: Weak<EndpointLive>, tasks: &Tasks) {
        if inner.reaping {
            return;
        }
        inner.reaping = true;
        tasks.spawn(async move {
            loop {
                tokio::time::sleep(IDLE_MAX).await;
                match owner.upgrade() {
                    Some(endpoint) if endpoint.pool.reap() => {}
                    _ => return,
                }
            }
        });
    }

    /// Closes what nobody used for long; false when nothing is left to look after.
    fn reap(&self) -> bool {
        let now = clock::now();
        let mut inner = self.lock();
        let old = |since: Time| now.since(since) >= IDLE_MAX;
        let idle: Vec<_> = inner
            .idle
            .extract_if(.., |idle| old(idle.since) || !idle.client.is_quiet())
            .collect();
        let shared: Vec<_> = inner
            .shared
            .extract_if(.., |shared| {
                let unused = shared.streams.load(Ordering::Acquire) == 0 && old(shared.used);
                shared.sender.is_closed() || unused
            })
            .collect();
        let left = !inner.idle.is_empty() || !inner.shared.is_empty();
        inner.reaping = left;
        drop(inner);
        drop((idle, shared));
        left
    }
}
