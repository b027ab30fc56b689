//! A queue of keys for control loops: each key waits at most once, is worked on by at most one worker at a time, and
//! comes back later with growing waits when the work failed.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::fmt::{self, Debug};
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::write::{is_conflict, is_namespace_terminating, is_not_found, message};

/// Wait after a key's first failure; doubles with each further one.
const RETRY_MIN: Duration = Duration::from_millis(5);
/// Longest wait between attempts.
const RETRY_MAX: Duration = Duration::from_secs(30);
/// Failures in a row from which on they are worth a warning: before that they are usually races with other writers.
const FAILURES_WORTH_A_WARNING: u32 = 4;

/// What a worker wants after a success.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Nothing until the key is added again.
    Event,
    /// Also look again after this long.
    After(Duration),
}

/// A queue of keys. Cheap to clone; all clones are one queue.
pub struct Queue<T> {
    shared: Arc<Shared<T>>,
}

struct Shared<T> {
    state: Mutex<State<T>>,
    wake: Notify,
}

struct State<T> {
    ready: VecDeque<T>,
    /// Waiting to be worked on: in `ready`, or re-added while active.
    dirty: HashSet<T>,
    active: HashSet<T>,
    /// Alarms in order of time; the number tells alarms of one instant apart.
    alarms: BTreeMap<(Instant, u64), T>,
    alarm_of: HashMap<T, (Instant, u64)>,
    alarms_set: u64,
    failures: HashMap<T, u32>,
}

impl<T> Clone for Queue<T> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<T> Debug for Queue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").finish_non_exhaustive()
    }
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        let state = State {
            ready: VecDeque::new(),
            dirty: HashSet::new(),
            active: HashSet::new(),
            alarms: BTreeMap::new(),
            alarm_of: HashMap::new(),
            alarms_set: 0,
            failures: HashMap::new(),
        };
        Self {
            shared: Arc::new(Shared {
                state: Mutex::new(state),
                wake: Notify::new(),
            }),
        }
    }
}

impl<T: Clone + Eq + Hash + Debug> Queue<T> {
    /// Work on `key` as soon as a worker is free. A key that is being worked on is worked on once more after that.
    pub fn add(&self, key: T) {
        if self.lock().add(key) {
            self.shared.wake.notify_one();
        }
    }

    /// Work on `key` after `wait`, or earlier if it is added before. The earliest alarm of a key counts.
    pub fn add_after(&self, key: T, wait: Duration) {
        self.lock().set_alarm(key, Instant::now() + wait);
        // A sleeping worker may have to sleep shorter now.
        self.shared.wake.notify_one();
    }

    /// Runs `workers` workers forever; dropping the future ends them. `work` must be safe to repeat at any time.
    pub async fn work<E, F>(&self, name: &'static str, workers: usize, work: F)
    where
        E: std::error::Error + 'static,
        F: AsyncFn(&T) -> Result<Next, E>,
    {
        let worker = async || {
            loop {
                let key = self.next().await;
                let result = work(&key).await;
                self.finish(name, key, result);
            }
        };
        let workers: Vec<_> = (0..workers).map(|_| worker()).collect();
        let _: Vec<()> = futures::future::join_all(workers).await;
    }

    /// The next key to work on; give it back with [`Queue::done`].
    pub async fn next(&self) -> T {
        loop {
            let sleep_until = {
                let mut state = self.lock();
                state.ring_alarms(Instant::now());
                if let Some(key) = state.take() {
                    if !state.ready.is_empty() {
                        self.shared.wake.notify_one();
                    }
                    return key;
                }
                state.alarms.first_key_value().map(|((at, _), _)| *at)
            };
            let woken = self.shared.wake.notified();
            match sleep_until {
                None => woken.await,
                Some(at) => {
                    // Either way the loop looks at everything again.
                    let _ = tokio::time::timeout_at(at, woken).await;
                }
            }
        }
    }

    /// The worker has finished with `key`.
    pub fn done(&self, key: &T) {
        if self.lock().done(key) {
            self.shared.wake.notify_one();
        }
    }

    fn finish<E: std::error::Error + 'static>(
        &self,
        name: &'static str,
        key: T,
        result: Result<Next, E>,
    ) {
        let mut state = self.lock();
        match result {
            Ok(next) => {
                state.failures.remove(&key);
                if let Next::After(wait) = next {
                    state.set_alarm(key.clone(), Instant::now() + wait);
                }
            }
            Err(error) => {
                let failures = state.failures.entry(key.clone()).or_default();
                *failures += 1;
                let failures = *failures;
                let wait = backoff(failures);
                let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
                let error_chain = chain(&error);
                if failures < FAILURES_WORTH_A_WARNING || is_ordinary(&error) {
                    tracing::debug!(
                        name,
                        ?key,
                        failures,
                        wait_ms,
                        error = error_chain,
                        "will try again"
                    );
                } else {
                    tracing::warn!(
                        name,
                        ?key,
                        failures,
                        wait_ms,
                        error = error_chain,
                        "keeps failing"
                    );
                }
                state.set_alarm(key.clone(), Instant::now() + wait);
            }
        }
        state.done(&key);
        drop(state);
        self.shared.wake.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.shared
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Clone + Eq + Hash> State<T> {
    /// Whether a worker has something new to take.
    fn add(&mut self, key: T) -> bool {
        if !self.dirty.insert(key.clone()) || self.active.contains(&key) {
            return false;
        }
        self.ready.push_back(key);
        true
    }

    /// Takes the oldest key; its alarm is off, since whoever works on it decides when to look again.
    fn take(&mut self) -> Option<T> {
        let key = self.ready.pop_front()?;
        self.dirty.remove(&key);
        self.active.insert(key.clone());
        if let Some(at) = self.alarm_of.remove(&key) {
            self.alarms.remove(&at);
        }
        Some(key)
    }

    /// Whether the key was added again meanwhile.
    fn done(&mut self, key: &T) -> bool {
        let again = self.active.remove(key) && self.dirty.contains(key);
        if again {
            self.ready.push_back(key.clone());
        }
        again
    }

    fn set_alarm(&mut self, key: T, at: Instant) {
        if let Some(known) = self.alarm_of.get(&key).copied() {
            if known.0 <= at {
                return;
            }
            self.alarms.remove(&known);
        }
        self.alarms_set += 1;
        self.alarms.insert((at, self.alarms_set), key.clone());
        self.alarm_of.insert(key, (at, self.alarms_set));
    }

    fn ring_alarms(&mut self, now: Instant) {
        while let Some(first) = self.alarms.first_entry()
            && first.key().0 <= now
        {
            let key = first.remove();
            self.alarm_of.remove(&key);
            self.add(key);
        }
    }
}

fn backoff(failures: u32) -> Duration {
    RETRY_MIN
        .saturating_mul(1 << failures.saturating_sub(1).min(16))
        .min(RETRY_MAX)
}

/// Failures that belong to many writers sharing objects.
fn is_ordinary(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut link = Some(error);
    while let Some(error) = link {
        if let Some(error) = error.downcast_ref::<kube::Error>() {
            return is_conflict(error) || is_not_found(error) || is_namespace_terminating(error);
        }
        link = error.source();
    }
    false
}

/// The error and what it comes from, in one line.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    if let Some(error) = error.downcast_ref::<kube::Error>() {
        return message(error);
    }
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    #[derive(Debug, thiserror::Error)]
    #[error("no")]
    struct No;

    #[tokio::test(start_paused = true)]
    async fn a_key_added_while_active_runs_once_more() {
        let queue = Queue::default();
        queue.add("a");
        queue.add("a");
        let key = queue.next().await;
        queue.add("a");
        queue.add("a");
        assert!(
            futures::FutureExt::now_or_never(queue.next()).is_none(),
            "one worker at a time"
        );
        queue.done(&key);
        assert_eq!(queue.next().await, "a");
        queue.done(&key);
        assert!(futures::FutureExt::now_or_never(queue.next()).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn the_earliest_alarm_counts_and_an_add_turns_it_off() {
        let queue = Queue::default();
        let start = Instant::now();
        queue.add_after("a", Duration::from_secs(5));
        queue.add_after("a", Duration::from_secs(2));
        queue.add_after("b", Duration::from_secs(3));
        queue.add("b");
        assert_eq!(queue.next().await, "b");
        assert_eq!(queue.next().await, "a");
        assert_eq!(start.elapsed().as_secs(), 2);
        assert!(
            tokio::time::timeout(Duration::from_secs(60), queue.next())
                .await
                .is_err()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn failures_wait_longer_and_longer() {
        let queue = Queue::default();
        queue.add("a");
        let times = RefCell::new(Vec::new());
        let start = Instant::now();
        let work = async |_: &&str| {
            times.borrow_mut().push(start.elapsed().as_millis());
            if times.borrow().len() < 5 {
                Err(No)
            } else {
                Ok(Next::Event)
            }
        };
        let _ = tokio::time::timeout(Duration::from_secs(1), queue.work("test", 2, work)).await;
        // The paused clock advances by whole milliseconds, at times one late.
        let gaps: Vec<u128> = times
            .borrow()
            .windows(2)
            .map(|pair| pair[1] - pair[0])
            .collect();
        assert_eq!(gaps.len(), 4);
        for (gap, wanted) in gaps.iter().zip([5, 10, 20, 40]) {
            assert!((wanted..=wanted + 2).contains(gap), "{gaps:?}");
        }
    }
}
