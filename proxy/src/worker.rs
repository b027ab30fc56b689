//! Threads that serve connections: each has a runtime, and connections to endpoints, of its own.

mod accept;
mod clients;
mod descriptors;
mod listeners;
mod proxied;
mod tasks;

use std::sync::Arc;

use futures::future::join_all;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(crate) use clients::Clients;
pub(crate) use descriptors::Descriptors;
pub(crate) use listeners::Listeners;
pub(crate) use tasks::Tasks;

use crate::engine::{EngineError, Shared};
use crate::listen::tune;
use listeners::{Entrance, Followed};

/// Runs the listeners on all workers until `shutdown`, then drains.
pub(crate) async fn run(
    shared: Arc<Shared>,
    shutdown: CancellationToken,
) -> Result<(), EngineError> {
    let mut workers = Vec::new();
    // Whatever ends this takes all workers down: one that cannot start, or a caller that does not wait for the end.
    let _end = End(shared.clone());
    for index in 0..shared.options.workers() {
        let (done, ended) = oneshot::channel();
        let (followed, shared) = (shared.listeners.follow(index), shared.clone());
        std::thread::Builder::new()
            .name(format!("worker-{index}"))
            .stack_size(1024 * 1024)
            .spawn(move || {
                let _ = done.send(work(index, &shared, followed));
            })
            .map_err(|source| EngineError::Worker { index, source })?;
        workers.push((index, ended));
    }
    let ending = async {
        shutdown.cancelled().await;
        shared.listeners.end();
        std::future::pending::<std::convert::Infallible>().await
    };
    let working = async {
        for (index, ended) in workers {
            ended
                .await
                .unwrap_or(Err(EngineError::WorkerLost { index }))?;
        }
        Ok(())
    };
    tokio::select! {
        ended = working => ended,
        never = ending => match never {},
    }
}

/// Closes all listeners when dropped.
struct End(Arc<Shared>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.listeners.end();
        self.0.listeners.forget();
    }
}

/// The life of one worker's thread.
fn work(index: usize, shared: &Arc<Shared>, mut followed: Followed) -> Result<(), EngineError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| EngineError::Worker { index, source })?;
    runtime.block_on(async {
        let attending = TaskTracker::new();
        loop {
            let entrances = followed.next().await;
            if entrances.is_empty() {
                break;
            }
            for entrance in entrances {
                attending.spawn(attend(index, shared.clone(), entrance));
            }
        }
        attending.close();
        attending.wait().await;
        Ok(())
    })
}

/// One listener on one worker, from its first connection until the last has drained.
async fn attend(worker: usize, shared: Arc<Shared>, entrance: Entrance) {
    let Entrance {
        sockets,
        door,
        closed,
    } = entrance;
    let tasks = Tasks::new(worker);
    let drain = CancellationToken::new();
    let listeners = sockets.into_iter().map(|socket| {
        // Those that `bind` did not open, or an older process did, are not tuned yet.
        tune(&socket)?;
        tokio::net::TcpListener::from_std(socket)
    });
    let listeners: Vec<_> = match listeners.collect() {
        Ok(listeners) => listeners,
        Err(error) => {
            let listener = door.name();
            return tracing::error!(worker, listener, %error, "a worker cannot listen");
        }
    };
    let accepting = listeners
        .iter()
        .map(|listener| door.accept(listener, &shared, &tasks, &drain));
    tokio::select! {
        _ = join_all(accepting) => {}
        () = tasks.give_back(|| shared.memory.give_back()) => {}
        () = closed.cancelled() => {}
    }
    for listener in listeners {
        if let Err(error) = door.accept_rest(listener, &shared, &tasks, &drain) {
            tracing::debug!(worker, listener = door.name(), %error, "the last connections are lost");
        }
    }
    drain.cancel();
    let left = tasks.drain(shared.options.drain).await;
    if left > 0 {
        let listener = door.name();
        tracing::warn!(
            worker,
            listener,
            left,
            "drain deadline passed; connections are cut"
        );
    }
}
