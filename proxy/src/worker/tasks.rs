//! Who owns the tasks of a listener's connections.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio_util::task::TaskTracker;

use crate::clock;

/// When at least so many have been open, and all but an eighth are gone, what they held is given back.
const MANY: usize = 512;
/// Behind that: until then the last have let go of what they had, and whoever comes back at once has come.
const SETTLED: Duration = Duration::from_secs(1);

/// The tasks of one listener on one worker. They end at the drain's deadline at the latest.
#[derive(Clone, Debug)]
pub(crate) struct Tasks(Arc<Owned>);

#[derive(Debug)]
struct Owned {
    worker: usize,
    /// Waited for when draining.
    connections: TaskTracker,
    /// How to end those that do not end by themselves.
    open: Mutex<Open>,
    /// Most of many are gone.
    emptied: Notify,
    /// Not waited for: connections to endpoints, reapers. They end with the worker's runtime.
    background: TaskTracker,
}

#[derive(Debug, Default)]
struct Open {
    /// Of the next task.
    key: u64,
    handles: HashMap<u64, AbortHandle>,
    /// So many were open at a time, since what was held was given back.
    most: usize,
}

impl Tasks {
    pub(crate) fn new(worker: usize) -> Self {
        Self(Arc::new(Owned {
            worker,
            connections: TaskTracker::new(),
            open: Mutex::default(),
            emptied: Notify::new(),
            background: TaskTracker::new(),
        }))
    }

    /// Which worker this is; connections to endpoints are used by the worker that made them.
    pub(crate) fn worker(&self) -> usize {
        self.0.worker
    }

    /// A task that serves others and ends with them.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.0.background.spawn(task);
    }

    /// A task that a client waits for.
    pub(crate) fn spawn_connection(&self, task: impl Future<Output = ()> + Send + 'static) {
        // A task that ends at once has to wait for the lock: it is listed before it is taken off the list.
        let mut open = self.0.open();
        let key = open.key;
        open.key += 1;
        let listed = Listed(self.0.clone(), key);
        // A block that awaits the task would hold it twice.
        let task = clock::by_steps(task).map(move |()| drop(listed));
        let task = self.0.connections.spawn(task);
        open.handles.insert(key, task.abort_handle());
        open.most = open.most.max(open.handles.len());
    }

    /// Has memory given back each time that most of many connections are gone. An allocator does so by itself only when
    /// it is used, which it hardly is when nobody is left. Never returns.
    pub(super) async fn give_back(&self, reclaim: impl Fn()) {
        loop {
            self.0.emptied.notified().await;
            tokio::time::sleep(SETTLED).await;
            reclaim();
        }
    }

    /// Waits for the connections to end, and ends those that have not when `patience` does. How many those were.
    pub(super) async fn drain(&self, patience: Duration) -> usize {
        let connections = &self.0.connections;
        connections.close();
        if tokio::time::timeout(patience, connections.wait())
            .await
            .is_ok()
        {
            return 0;
        }
        let left = std::mem::take(&mut self.0.open().handles);
        left.values().for_each(AbortHandle::abort);
        connections.wait().await;
        left.len()
    }
}

impl Owned {
    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A task on the list; off it when dropped.
struct Listed(Arc<Owned>, u64);

impl Drop for Listed {
    fn drop(&mut self) {
        let mut open = self.0.open();
        let handle = open.handles.remove(&self.1);
        let left = open.handles.len();
        if open.most >= MANY && left <= open.most / 8 {
            open.most = left;
            open.handles.shrink_to_fit();
            self.0.emptied.notify_one();
        }
        drop(open);
        drop(handle);
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use super::*;

    struct Sets(Arc<AtomicBool>);

    impl Drop for Sets {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_many_held_is_given_back_once() {
        let tasks = Tasks::new(0);
        let given_back = AtomicUsize::new(0);
        let count = || {
            given_back.fetch_add(1, Ordering::Relaxed);
        };
        let rounds = async {
            for (most, left, expected) in [
                (MANY - 1, 0, 0),
                (MANY, MANY / 8 + 1, 0),
                (MANY, MANY / 8, 1),
                (MANY, 0, 2),
                (MANY / 2, 0, 2),
            ] {
                let (go, gone) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
                for index in 0..most {
                    let end = if index < left { &gone } else { &go }.clone();
                    tasks.spawn_connection(async move { end.notified().await });
                }
                // Time passes here when all of them wait.
                tokio::time::sleep(SETTLED).await;
                go.notify_waiters();
                tokio::time::sleep(10 * SETTLED).await;
                let seen = given_back.load(Ordering::Relaxed);
                assert_eq!(seen, expected, "{left} of {most} are left");
                gone.notify_waiters();
                tokio::time::sleep(10 * SETTLED).await;
                given_back.store(expected, Ordering::Relaxed);
                tasks.0.open().most = 0;
            }
        };
        tokio::select! {
            () = tasks.give_back(count) => {}
            () = rounds => {}
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_end_is_ended() {
        let tasks = Tasks::new(0);
        let dropped = Arc::new(AtomicBool::new(false));
        let held = Sets(dropped.clone());
        tasks.spawn_connection(async {});
        tasks.spawn_connection(async move {
            let _held = held;
            pending().await
        });
        let second = tokio::time::Duration::from_secs(1);
        assert_eq!(tasks.drain(second).await, 1, "the first has ended");
        assert!(
            dropped.load(Ordering::Relaxed),
            "what it held is given back"
        );
        assert_eq!(tasks.drain(second).await, 0);
    }
}
