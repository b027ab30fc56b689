//! What is known of a service and its endpoints from using them. Shared by all workers; survives configuration.

use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use meshgate_routing::Time;
use meshgate_routing::upstream::breaker::{Change, Condition};
use meshgate_routing::upstream::pick::{Algorithm, Class, cost};
use meshgate_routing::upstream::{
    Breaker, BreakerPolicy, Candidate, EjectionBook, Latency, Pick, RetryBudget, pick,
};
use tokio_util::sync::CancellationToken;

use super::{Endpoint, Gate, Policy, Service};
use crate::clock;
use crate::upstream::Pool;

/// State of a service.
#[derive(Debug)]
pub(crate) struct ServiceLive {
    ejections: Mutex<EjectionBook>,
    budget: Mutex<RetryBudget>,
    turn: AtomicUsize,
    /// Requests in flight.
    pub(crate) requests: Arc<Gate>,
    /// Connections to all endpoints.
    pub(crate) connections: Arc<Gate>,
}

/// State of an endpoint.
#[derive(Debug, Default)]
pub(crate) struct EndpointLive {
    in_flight: AtomicU32,
    /// Nanoseconds of [`Time`] until which the endpoint is ejected; zero when it takes requests. Mirrors `breaker`.
    ejected_until: AtomicU64,
    /// Mirrors `breaker` as well, so that a success after a success takes no lock.
    failures: AtomicU32,
    breaker: Mutex<Breaker>,
    /// With [`Algorithm::PeakEwma`].
    latency: Mutex<Latency>,
    /// Nanoseconds of [`Time`] until which the endpoint asked to be left alone.
    paused_until: AtomicU64,
    pub(crate) pool: Pool,
    /// Cancelled when the endpoint leaves its service: whoever still tries to connect need not go on.
    pub(crate) gone: CancellationToken,
}

/// A chosen endpoint; counts as load until dropped.
#[derive(Debug)]
pub(crate) struct Picked {
    pub(crate) endpoint: Endpoint,
    pub(crate) index: usize,
    /// Nanoseconds of [`Time`] when there was a place among the connections, if that had to be waited for.
    place_found: AtomicU64,
}

/// Why none was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoPick {
    /// There are none.
    Empty,
    /// All are ejected.
    AllEjected,
}

/// Locks are held for a few instructions that cannot panic; a poisoned one is as good as any.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl ServiceLive {
    pub(crate) fn new(policy: &Policy) -> Self {
        let retries = &policy.retries;
        Self {
            ejections: Mutex::default(),
            budget: Mutex::new(RetryBudget::new(
                retries.budget_percent,
                retries.budget_min_per_second,
            )),
            turn: AtomicUsize::new(0),
            requests: Arc::default(),
            connections: Arc::default(),
        }
    }

    pub(crate) fn retune(&self, policy: &Policy) {
        let retries = &policy.retries;
        lock(&self.budget).retune(retries.budget_percent, retries.budget_min_per_second);
    }

    /// An endpoint left the service.
    pub(crate) fn forget(&self, endpoint: &EndpointLive) {
        let mut book = lock(&self.ejections);
        let mut breaker = lock(&endpoint.breaker);
        book.forget(&breaker);
        *breaker = Breaker::default();
        endpoint.mirror(&breaker, Time::ZERO);
        endpoint.pool.close();
        endpoint.gone.cancel();
    }

    pub(crate) fn count_request(&self, now: Time) {
        lock(&self.budget).request(now);
    }

    pub(crate) fn afford_retry(&self, now: Time) -> bool {
        lock(&self.budget).retry(now)
    }
}

impl Service {
    /// Chooses an endpoint for an attempt, by a key if the service has a ring and the request one; those in `tried` only
    /// when nothing better is left.
    pub(crate) fn pick(
        &self,
        tried: &[usize],
        key: Option<&[u8]>,
        now: Time,
        chance: u64,
    ) -> Result<Picked, NoPick> {
        let algorithm = self.policy().algorithm;
        let turn = self.live.turn.fetch_add(1, Ordering::Relaxed);
        let mut lost_probes: Vec<usize> = Vec::new();
        loop {
            let candidate = |index: usize| {
                let endpoint = &self.endpoints[index];
                let mut class = endpoint.class(now);
                if class == Class::Probe && lost_probes.contains(&index) {
                    class = Class::Ejected;
                }
                if class == Class::Ready && tried.contains(&index) {
                    class = Class::Tried;
                }
                Candidate {
                    cost: endpoint.live().cost(algorithm, now),
                    class,
                }
            };
            let count = self.endpoints.len();
            let picked = match (&self.ring, key) {
                (Some(ring), Some(key)) => ring.pick(key, candidate, chance),
                _ => pick(algorithm, count, candidate, turn, chance),
            };
            let index = match picked {
                Pick::Endpoint(index) => index,
                Pick::Empty => return Err(NoPick::Empty),
                Pick::AllEjected => return Err(NoPick::AllEjected),
            };
            let endpoint = &self.endpoints[index];
            let probes = endpoint.class(now) == Class::Probe;
            if probes && !endpoint.live().claim_probe(&self.policy().breaker, now) {
                lost_probes.push(index);
                continue;
            }
            return Ok(Picked::new(endpoint.clone(), index));
        }
    }

    /// This very endpoint, whatever is known of it: the client chose it.
    pub(crate) fn pick_this(&self, index: usize) -> Result<Picked, NoPick> {
        let endpoint = self.endpoints.get(index).ok_or(NoPick::Empty)?;
        Ok(Picked::new(endpoint.clone(), index))
    }

    /// An exchange with an endpoint went well. When it began is only asked where latency counts, as below.
    pub(crate) fn succeeded(&self, picked: &Picked, begun: impl FnOnce() -> Time) -> Change {
        let live = picked.endpoint.live();
        if self.policy().algorithm == Algorithm::PeakEwma {
            let now = clock::now();
            lock(&live.latency).answered(now.since(picked.since(begun())), now);
        }
        self.works(live)
    }

    /// An endpoint answered that it has too much to do: how quickly it did says nothing, and it may ask to be left alone.
    pub(crate) fn was_busy(
        &self,
        picked: &Picked,
        begun: impl FnOnce() -> Time,
        pause: Option<Duration>,
    ) -> Change {
        let live = picked.endpoint.live();
        let now = clock::now();
        if let Some(pause) = pause {
            live.pause(now, pause);
        }
        if self.policy().algorithm == Algorithm::PeakEwma {
            lock(&live.latency).failed(now.since(picked.since(begun())), now);
        }
        self.works(live)
    }

    fn works(&self, live: &EndpointLive) -> Change {
        let policy = &self.policy().breaker;
        let clean = live.failures.load(Ordering::Acquire) == 0
            && live.ejected_until.load(Ordering::Acquire) == 0;
        if clean && policy.success_rate.is_none() {
            return Change::None;
        }
        let mut book = lock(&self.live.ejections);
        if live.gone.is_cancelled() {
            return Change::None;
        }
        let mut breaker = lock(&live.breaker);
        let now = clock::now();
        let change = breaker.succeeded(policy, &mut book, now);
        live.mirror(&breaker, now);
        change
    }

    /// An exchange with an endpoint failed.
    pub(crate) fn failed(
        &self,
        picked: &Picked,
        begun: impl FnOnce() -> Time,
        now: Time,
        chance: u64,
    ) -> Change {
        let live = picked.endpoint.live();
        if self.policy().algorithm == Algorithm::PeakEwma {
            lock(&live.latency).failed(now.since(picked.since(begun())), now);
        }
        let mut book = lock(&self.live.ejections);
        // Nobody would ever count it out of the book again.
        if live.gone.is_cancelled() {
            return Change::None;
        }
        let mut breaker = lock(&live.breaker);
        let policy = &self.policy().breaker;
        let change = breaker.failed(policy, &mut book, self.endpoints.len(), now, chance);
        live.mirror(&breaker, now);
        change
    }
}

impl Endpoint {
    fn class(&self, now: Time) -> Class {
        match self.live().ejected_until.load(Ordering::Acquire) {
            0 if self.spec().terminating => Class::Terminating,
            0 => Class::Ready,
            until if now.as_nanos() < until => Class::Ejected,
            _ => Class::Probe,
        }
    }
}

/// However long an endpoint wants to be left alone.
const PAUSE_MAX: Duration = Duration::from_secs(60);

impl EndpointLive {
    fn pause(&self, now: Time, pause: Duration) {
        let until = now + pause.min(PAUSE_MAX);
        self.paused_until
            .fetch_max(until.as_nanos(), Ordering::Relaxed);
    }

    fn cost(&self, algorithm: Algorithm, now: Time) -> u64 {
        let in_flight = self.in_flight.load(Ordering::Relaxed);
        let is_paused = now.as_nanos() < self.paused_until.load(Ordering::Relaxed);
        let requests = match algorithm {
            Algorithm::PeakEwma => lock(&self.latency).cost(in_flight, is_paused, now),
            _ => u64::from(in_flight) + 1,
        };
        cost(requests, is_paused)
    }

    fn claim_probe(&self, policy: &BreakerPolicy, now: Time) -> bool {
        let mut breaker = lock(&self.breaker);
        let claimed = breaker.probe(policy, now);
        self.mirror(&breaker, now);
        claimed
    }

    fn mirror(&self, breaker: &Breaker, now: Time) {
        let until = match breaker.condition(now) {
            Condition::Taking => 0,
            Condition::Ejected(until) => until.as_nanos().max(1),
            Condition::ProbeDue => now.as_nanos().max(1),
        };
        self.ejected_until.store(until, Ordering::Release);
        self.failures.store(breaker.failures(), Ordering::Release);
    }
}

impl Picked {
    fn new(endpoint: Endpoint, index: usize) -> Self {
        endpoint.live().in_flight.fetch_add(1, Ordering::Relaxed);
        Self {
            endpoint,
            index,
            place_found: AtomicU64::new(0),
        }
    }

    /// There is a place for a connection now, after waiting for one.
    pub(crate) fn found_place(&self) {
        let now = clock::now().as_nanos();
        self.place_found.store(now, Ordering::Relaxed);
    }

    /// Since when the endpoint was waited for, in an attempt that began then.
    fn since(&self, begun: Time) -> Time {
        begun.max(Time::from_nanos(self.place_found.load(Ordering::Relaxed)))
    }
}

impl Clone for Picked {
    fn clone(&self) -> Self {
        Self::new(self.endpoint.clone(), self.index)
    }
}

impl Drop for Picked {
    fn drop(&mut self) {
        self.endpoint
            .live()
            .in_flight
            .fetch_sub(1, Ordering::Relaxed);
    }
}
