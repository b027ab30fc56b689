//! Threads that serve connections: each has a runtime, and connections to endpoints, of its own.

mod accept;

use std::future::Future;
use std::sync::Arc;

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::engine::{EngineError, Shared};
use crate::listen::Listener;
use accept::Door;

/// Who owns the tasks of one worker. They end with its runtime at the latest, which is at the drain's deadline.
#[derive(Clone, Debug)]
pub(crate) struct Tasks {
    worker: usize,
    /// Waited for when draining.
    connections: TaskTracker,
    /// Not waited for: connections to endpoints, reapers.
    background: TaskTracker,
}

impl Tasks {
    pub(crate) fn new(worker: usize) -> Self {
        Self {
            worker,
            connections: TaskTracker::new(),
            background: TaskTracker::new(),
        }
    }

    /// Which worker this is; connections to endpoints are used by the worker that made them.
    pub(crate) fn worker(&self) -> usize {
        self.worker
    }

    /// A task that serves others and ends with them.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.background.spawn(task);
    }

    /// A task that a client waits for.
    pub(crate) fn spawn_connection(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.connections.spawn(task);
    }
}

/// How the HTTP library starts the tasks of a connection.
impl<F> hyper::rt::Executor<F> for Tasks
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, task: F) {
        self.background.spawn(async move {
            task.await;
        });
    }
}

/// Runs all listeners on all workers until `shutdown`, then drains.
pub(crate) async fn run(
    shared: Arc<Shared>,
    listeners: Vec<Listener>,
    shutdown: CancellationToken,
) -> Result<(), EngineError> {
    let count = shared.options.workers.max(1);
    let entrances = entrances(listeners, count)?;
    let mut workers = Vec::new();
    // A worker that cannot start takes the others down with it.
    let stop = shutdown.child_token();
    let _stop_on_error = stop.clone().drop_guard();
    for (index, entrances) in entrances.into_iter().enumerate() {
        let (done, ended) = oneshot::channel();
        let (shared, stop) = (shared.clone(), stop.clone());
        std::thread::Builder::new()
            .name(format!("worker-{index}"))
            .stack_size(1024 * 1024)
            .spawn(move || {
                let _ = done.send(work(index, &shared, entrances, &stop));
            })
            .map_err(|source| EngineError::Worker { index, source })?;
        workers.push((index, ended));
    }
    for (index, ended) in workers {
        ended
            .await
            .unwrap_or(Err(EngineError::WorkerLost { index }))?;
    }
    Ok(())
}

/// A worker's handle on a listening socket, and what all workers know of that listener.
type Entrance = (std::net::TcpListener, Arc<Door>);

/// Each worker's handles. The sockets close with the last of them, which is when accepting stops: a client that comes
/// later is refused at once instead of waiting for nobody.
fn entrances(listeners: Vec<Listener>, workers: usize) -> Result<Vec<Vec<Entrance>>, EngineError> {
    let mut all: Vec<Vec<Entrance>> = (0..workers).map(|_| Vec::new()).collect();
    for listener in listeners {
        let failed = |source| EngineError::Listener {
            name: listener.kind.name(),
            source,
        };
        listener.socket.set_nonblocking(true).map_err(failed)?;
        let door = Arc::new(Door::new(&listener));
        for entrances in &mut all {
            let socket = listener.socket.try_clone().map_err(failed)?;
            entrances.push((socket, door.clone()));
        }
    }
    Ok(all)
}

/// The life of one worker's thread.
fn work(
    index: usize,
    shared: &Arc<Shared>,
    entrances: Vec<Entrance>,
    stop: &CancellationToken,
) -> Result<(), EngineError> {
    let failed = |source| EngineError::Worker { index, source };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(failed)?;
    let tasks = Tasks::new(index);
    runtime.block_on(async {
        let drain = CancellationToken::new();
        let accepting = TaskTracker::new();
        for (socket, door) in entrances {
            let listener = tokio::net::TcpListener::from_std(socket).map_err(failed)?;
            let shared = shared.clone();
            let (tasks, drain, stop) = (tasks.clone(), drain.clone(), stop.clone());
            accepting.spawn(async move {
                tokio::select! {
                    () = door.accept(listener, &shared, &tasks, &drain) => {}
                    () = stop.cancelled() => {}
                }
            });
        }
        accepting.close();
        accepting.wait().await;
        drain.cancel();
        tasks.connections.close();
        let patience = shared.options.drain;
        if tokio::time::timeout(patience, tasks.connections.wait())
            .await
            .is_err()
        {
            let left = tasks.connections.len();
            tracing::warn!(
                worker = index,
                left,
                "drain deadline passed; connections are cut"
            );
        }
        Ok(())
    })
}
