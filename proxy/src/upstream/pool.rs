//! The connections to one endpoint. They belong to it: when it goes, they go.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use meshgate_routing::Time;
use tokio::sync::Semaphore;

use super::Wire;
use super::announce::Sole;
use crate::clock;
use crate::http1::Client;
use crate::http2;
use crate::service::EndpointLive;
use crate::worker::Tasks;

/// Unused for this long, a connection is closed. Shorter than the 60 s that servers commonly wait, so that requests
/// rarely meet a connection that its server is just closing.
const IDLE_MAX: Duration = Duration::from_secs(30);
/// Streams of one HTTP/2 connection; more open another. The usual limit of servers.
pub(super) const STREAMS_MAX: usize = 100;

/// All connections to an endpoint that can take a request.
#[derive(Debug)]
pub(crate) struct Pool {
    inner: Mutex<Inner>,
    /// One HTTP/2 connection is made at a time; the others wait for it and share it.
    pub(super) making: Arc<Semaphore>,
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
    sole: Option<Sole>,
}

/// An HTTP/2 connection.
#[derive(Debug)]
struct Shared {
    client: http2::Client,
    used: Time,
    wire: Wire,
    worker: usize,
    sole: Option<Sole>,
}

impl Default for Pool {
    fn default() -> Self {
        Self {
            inner: Mutex::default(),
            making: Arc::new(Semaphore::new(1)),
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

    /// An HTTP/1 connection that this worker made, for that client if it matters, and that is ready.
    pub(super) fn take_idle(&self, worker: usize, sole: Option<&Sole>) -> Option<Box<Client>> {
        let now = clock::now();
        let fits = |idle: &Idle| idle.worker == worker && Sole::fits(idle.sole.as_ref(), sole);
        loop {
            let mut inner = self.lock();
            let position = inner.idle.iter().rposition(fits)?;
            let mut idle = inner.idle.swap_remove(position);
            drop(inner);
            // Outside the lock: looking reads what the endpoint says.
            if now.since(idle.since) < IDLE_MAX && idle.client.is_quiet() {
                return Some(idle.client);
            }
        }
    }

    /// Closes the HTTP/1 connection that waits for longest, whoever made it; false when none waits.
    pub(super) fn give_up_idle(&self) -> bool {
        let mut inner = self.lock();
        let longest = inner
            .idle
            .iter()
            .enumerate()
            .min_by_key(|(_, idle)| idle.since);
        let Some((position, _)) = longest else {
            return false;
        };
        let idle = inner.idle.swap_remove(position);
        drop(inner);
        // Outside the lock: its place in the service's limits wakes others.
        drop(idle);
        true
    }

    /// Since when an HTTP/2 connection on which nothing is going on was not used, of several the longest.
    pub(super) fn longest_unused_shared(&self) -> Option<Time> {
        let inner = self.lock();
        let unused = inner.shared.iter().filter(|shared| shared.client.is_idle());
        unused.map(|shared| shared.used).min()
    }

    /// Ends an HTTP/2 connection that was not used since then, if that is still so.
    pub(super) fn give_up_shared(&self, since: Time) {
        let mut inner = self.lock();
        let unused = |shared: &Shared| shared.used == since && shared.client.is_idle();
        let position = inner.shared.iter().position(unused);
        let given_up = position.map(|position| inner.shared.swap_remove(position));
        drop(inner);
        // Outside the lock: dropping wakes its task.
        drop(given_up);
    }

    /// Closes those whose clients have gone.
    pub(super) fn give_up_orphans(&self) {
        let mut inner = self.lock();
        let idle = inner
            .idle
            .extract_if(.., |idle| Sole::is_orphan(idle.sole.as_ref()));
        let idle: Vec<_> = idle.collect();
        let shared = inner
            .shared
            .extract_if(.., |shared| Sole::is_orphan(shared.sole.as_ref()));
        let shared: Vec<_> = shared.collect();
        drop(inner);
        // Outside the lock, as above.
        drop((idle, shared));
    }

    /// Keeps an HTTP/1 connection whose exchange is complete.
    pub(super) fn keep(
        &self,
        client: Box<Client>,
        (worker, sole): (usize, Option<Sole>),
        owner: Weak<EndpointLive>,
        tasks: &Tasks,
    ) {
        if !Sole::waits_at(sole.as_ref(), &owner) {
            return;
        }
        let mut inner = self.lock();
        if inner.closed {
            return;
        }
        inner.idle.push(Idle {
            client,
            since: clock::now(),
            worker,
            sole,
        });
        Self::reap_later(&mut inner, owner, tasks);
    }

    /// An HTTP/2 connection that this worker made, for that client if it matters, and that has room for a stream.
    pub(super) fn share(
        &self,
        wire: Wire,
        worker: usize,
        sole: Option<&Sole>,
    ) -> Option<http2::Client> {
        let mut inner = self.lock();
        let mut shared = inner
            .shared
            .iter_mut()
            .filter(|shared| shared.wire == wire && shared.worker == worker)
            .filter(|shared| Sole::fits(shared.sole.as_ref(), sole));
        let shared = shared.find(|shared| shared.client.has_room(STREAMS_MAX))?;
        shared.used = clock::now();
        Some(shared.client.clone())
    }

    /// Makes a new HTTP/2 connection known.
    pub(super) fn add_shared(
        &self,
        client: http2::Client,
        (wire, sole): (Wire, Option<Sole>),
        worker: usize,
        owner: Weak<EndpointLive>,
        tasks: &Tasks,
    ) {
        if !Sole::waits_at(sole.as_ref(), &owner) {
            return;
        }
        let mut inner = self.lock();
        if inner.closed {
            return;
        }
        let (used_up, left) = std::mem::take(&mut inner.shared)
            .into_iter()
            .partition(|shared| shared.client.is_used_up());
        inner.shared = left;
        inner.shared.push(Shared {
            client,
            used: clock::now(),
            wire,
            worker,
            sole,
        });
        Self::reap_later(&mut inner, owner, tasks);
        drop(inner);
        // Outside the lock: dropping wakes their tasks.
        drop::<Vec<Shared>>(used_up);
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
        let old = |since: Time| now.since(since) >= IDLE_MAX;
        let mut waiting = std::mem::take(&mut self.lock().idle);
        // Outside the lock: looking reads what the endpoints say.
        let idle: Vec<_> = waiting
            .extract_if(.., |idle| old(idle.since) || !idle.client.is_quiet())
            .collect();
        let mut inner = self.lock();
        let shared: Vec<_> = inner
            .shared
            .extract_if(.., |shared| {
                let unused = shared.client.is_idle() && old(shared.used);
                shared.client.is_used_up() || unused
            })
            .collect();
        // The endpoint may have gone meanwhile; and somebody may have missed what was not there.
        if !inner.closed {
            waiting.iter().for_each(|idle| idle.client.wake_waiter());
            inner.idle.splice(..0, waiting.drain(..));
        }
        let left = !inner.idle.is_empty() || !inner.shared.is_empty();
        inner.reaping = left;
        drop(inner);
        drop((idle, shared, waiting));
        left
    }
}
