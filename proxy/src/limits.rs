//! Rate limits with their counters, and the replica's side of global quotas.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use meshgate_routing::Time;
use meshgate_routing::permit::lease::{Asking, Demand, Grant, LeaseHolder, Take, WAIT_MAX};
use meshgate_routing::permit::limit::{LimitRequest, Scope};
use meshgate_routing::permit::local::LocalLimiter;
use meshgate_routing::permit::{Limit, Permit, Refusal};
use tokio::sync::Notify;

/// A limit and its counters. Rules share it; it lives as long as one of them does.
#[derive(Debug)]
pub struct RateLimit {
    limit: Limit,
    counter: Arc<Counter>,
    quota: Arc<QuotaState>,
    /// Evictions that were reported.
    evicted: AtomicU64,
}

/// The counters of a limit, kept when its configuration changes.
#[derive(Debug)]
enum Counter {
    Local(Mutex<LocalLimiter>),
    Global(Mutex<LeaseHolder>),
}

/// All limits of a proxy, by id: a changed limit keeps its counters.
#[derive(Debug, Clone, Default)]
pub struct LimitBook {
    counters: Arc<Mutex<HashMap<Arc<str>, Weak<Counter>>>>,
    quota: Arc<QuotaState>,
}

#[derive(Debug, Default)]
struct QuotaState {
    /// Something is wanted from the owner.
    wanted: Notify,
    /// The owner granted something, or was lost.
    changed: Notify,
    connected: AtomicBool,
    /// When the last message was due, in nanoseconds of [`Time`].
    last_message: AtomicU64,
}

/// Messages to the owner of global limits are at least this far apart.
const MESSAGE_SPACING: Duration = Duration::from_millis(2);

/// Demands in one message; the owner refuses more than 4096. After a reconnect every bucket has something to tell.
const DEMANDS_MAX: usize = 1024;

/// And about so many bytes of them: a message may have 4 MiB, and one demand takes at most some 100 KiB.
const MESSAGE_BYTES_MAX: usize = 1024 * 1024;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl LimitBook {
    /// Opens a limit: with the counters it had, if it was open before in the same scope.
    pub fn open(&self, limit: Limit) -> Arc<RateLimit> {
        let mut counters = lock(&self.counters);
        counters.retain(|_, counter| counter.strong_count() > 0);
        let known = counters.get(&limit.id).and_then(Weak::upgrade);
        let counter = match (known, limit.scope) {
            (Some(counter), Scope::Local) if matches!(*counter, Counter::Local(_)) => counter,
            (Some(counter), Scope::Global { .. }) if matches!(*counter, Counter::Global(_)) => {
                counter
            }
            (_, Scope::Local) => {
                Arc::new(Counter::Local(Mutex::new(LocalLimiter::new(limit.rate))))
            }
            (_, Scope::Global { .. }) => {
                let connected = self.is_connected();
                let holder = LeaseHolder::new(limit.id.clone(), connected);
                Arc::new(Counter::Global(Mutex::new(holder)))
            }
        };
        counters.insert(limit.id.clone(), Arc::downgrade(&counter));
        drop(counters);
        match (&*counter, limit.scope) {
            (Counter::Local(local), _) => lock(local).retune(limit.rate),
            (
                Counter::Global(holder),
                Scope::Global {
                    replicas,
                    on_failure,
                },
            ) => lock(holder).retune(limit.rate, replicas, on_failure),
            (Counter::Global(_), Scope::Local) => {}
        }
        Arc::new(RateLimit {
            limit,
            evicted: AtomicU64::new(counter.evicted()),
            counter,
            quota: self.quota.clone(),
        })
    }

    /// The quota client's end: sends demands, brings grants.
    pub fn quota(&self) -> Quota {
        Quota { book: self.clone() }
    }

    fn is_connected(&self) -> bool {
        self.quota.connected.load(Ordering::Acquire)
    }

    fn open_counters(&self) -> Vec<(Arc<str>, Arc<Counter>)> {
        lock(&self.counters)
            .iter()
            .filter_map(|(id, counter)| Some((id.clone(), counter.upgrade()?)))
            .collect()
    }
}

/// What a quota client does, once for each proxy: while its stream to the owner is open it sends
/// [`demands`](Self::demands) whenever [`wanted`](Self::wanted) returns, and hands every grant to
/// [`granted`](Self::granted).
#[derive(Debug, Clone)]
pub struct Quota {
    book: LimitBook,
}

impl Quota {
    /// The stream to the owner is open.
    pub fn connected(&self, now: Time) {
        self.set_connected(true, now);
    }

    /// The stream to the owner is gone: limits follow their failure mode until it is back.
    pub fn lost(&self, now: Time) {
        self.set_connected(false, now);
    }

    /// Returns when there is something to tell the owner, and at most every `MESSAGE_SPACING`.
    pub async fn wanted(&self) {
        let state = &self.book.quota;
        let last = Time::from_nanos(state.last_message.load(Ordering::Relaxed));
        let since = crate::clock::now().since(last);
        if let Some(left) = MESSAGE_SPACING.checked_sub(since) {
            tokio::time::sleep(left).await;
        }
        self.something_due().await;
        state
            .last_message
            .store(crate::clock::now().as_nanos(), Ordering::Relaxed);
    }

    async fn something_due(&self) {
        loop {
            let wanted = self.book.quota.wanted.notified();
            let due = self.due();
            let now = crate::clock::now();
            match due {
                Some(due) if due <= now => return,
                Some(due) => {
                    // Whichever comes first; then look again.
                    let _ = tokio::time::timeout(due.since(now), wanted).await;
                }
                None => wanted.await,
            }
        }
    }

    fn due(&self) -> Option<Time> {
        self.book
            .open_counters()
            .iter()
            .filter_map(|(_, counter)| match &**counter {
                Counter::Global(holder) => lock(holder).due(),
                Counter::Local(_) => None,
            })
            .min()
    }

    /// What to tell the owner now, as much as a message may carry: the rest stays due. Empty when nothing is wanted
    /// after all.
    pub fn demands(&self, now: Time) -> Vec<Demand> {
        let mut demands = Vec::new();
        let mut bytes = 0;
        for (_, counter) in self.book.open_counters() {
            let Counter::Global(holder) = &*counter else {
                continue;
            };
            let mut holder = lock(holder);
            while demands.len() < DEMANDS_MAX
                && bytes < MESSAGE_BYTES_MAX
                && let Some(demand) = holder.next_demand(now)
            {
                bytes += demand.bytes_max();
                demands.push(demand);
            }
        }
        demands
    }

    /// What the owner answered. Grants of limits that are gone are ignored.
    pub fn granted(&self, now: Time, grants: &[Grant]) {
        {
            let counters = lock(&self.book.counters);
            for grant in grants {
                if let Some(counter) = counters.get(&grant.limit).and_then(Weak::upgrade)
                    && let Counter::Global(holder) = &*counter
                {
                    lock(holder).granted(now, grant);
                }
            }
        }
        self.book.quota.changed.notify_waiters();
    }

    fn set_connected(&self, connected: bool, now: Time) {
        self.book
            .quota
            .connected
            .store(connected, Ordering::Release);
        for (_, counter) in self.book.open_counters() {
            if let Counter::Global(holder) = &*counter {
                lock(holder).set_connected(now, connected);
            }
        }
        self.book.quota.changed.notify_waiters();
        if connected {
            self.book.quota.wanted.notify_one();
        }
    }
}

impl Counter {
    /// Buckets that were forgotten to stay within memory, ever.
    fn evicted(&self) -> u64 {
        match self {
            Self::Local(local) => lock(local).evicted(),
            Self::Global(holder) => lock(holder).evicted(),
        }
    }
}

impl RateLimit {
    /// Buckets that were forgotten since the last time somebody asked.
    pub(crate) fn newly_evicted(&self) -> u64 {
        let now = self.counter.evicted();
        now.saturating_sub(self.evicted.swap(now, Ordering::Relaxed))
    }

    /// As configured.
    pub fn limit(&self) -> &Limit {
        &self.limit
    }

    /// One request: let through or refused. Waits, briefly, only for the first lease of a bucket.
    pub(crate) async fn take(&self, request: &LimitRequest<'_>) -> Result<Permit, Refusal> {
        let mut key = String::new();
        self.limit.write_key(request, &mut key);
        match &*self.counter {
            Counter::Local(local) => lock(local).take(&key, crate::clock::now()),
            Counter::Global(holder) => self.take_lease(holder, &key).await,
        }
    }

    async fn take_lease(&self, holder: &Mutex<LeaseHolder>, key: &str) -> Result<Permit, Refusal> {
        let mut asking = Asking::default();
        let mut ask = |patient: bool| {
            let mut holder = lock(holder);
            let before = holder.due();
            let take = holder.take(key, crate::clock::now(), &mut asking, patient);
            if holder.due() != before {
                self.quota.wanted.notify_one();
            }
            take
        };
        let deadline = tokio::time::sleep(WAIT_MAX);
        tokio::pin!(deadline);
        loop {
            let changed = self.quota.changed.notified();
            tokio::pin!(changed);
            // Registered before asking, so that a grant in between is not missed.
            changed.as_mut().enable();
            match ask(!deadline.is_elapsed()) {
                Take::Admitted(permit) => return Ok(permit),
                Take::Refused(refusal) => return Err(refusal),
                Take::Wait => {}
            }
            tokio::select! {
                () = changed => {}
                () = &mut deadline => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use meshgate_routing::permit::Rate;
    use meshgate_routing::permit::limit::{KeyPart, LimitMatch, OnFailure};

    use super::*;
    use crate::clock::now;

    /// As many clients as that came while there was no owner: all of it is told, in so many messages.
    async fn check(clients: u32, id_bytes: usize, messages: usize) {
        let book = LimitBook::default();
        let limit = book.open(Limit {
            id: "x".repeat(id_bytes).into(),
            name: "all".into(),
            matches: LimitMatch::default(),
            key: vec![KeyPart::ClientAddress {
                prefix_v4: 32,
                prefix_v6: 128,
            }],
            rate: Rate::new(1000, Duration::from_secs(3600), 0),
            scope: Scope::Global {
                replicas: 1,
                on_failure: OnFailure::LocalShare,
            },
            shadow: false,
        });
        for client in 0..clients {
            let request = LimitRequest {
                method: "GET",
                path: "/",
                client: std::net::Ipv4Addr::from(client).into(),
                identity: None,
                header: &|_| None,
            };
            limit.take(&request).await.expect("within the limit");
        }
        let quota = book.quota();
        quota.connected(now());
        let mut told = Vec::new();
        for part in 0..messages {
            quota.wanted().await;
            let demands = quota.demands(now());
            assert!(!demands.is_empty(), "{part} of {messages} messages");
            assert!(demands.len() <= DEMANDS_MAX, "{}", demands.len());
            told.extend(demands.into_iter().map(|demand| demand.key));
        }
        assert!(quota.demands(now()).is_empty());
        told.sort();
        told.dedup();
        assert_eq!(told.len(), clients as usize);
    }

    #[tokio::test]
    async fn what_a_new_owner_must_learn_is_told_in_parts() {
        check(10, 10, 1).await;
        check(5000, 10, 5).await;
        check(1000, 4096, 4).await;
    }
}
