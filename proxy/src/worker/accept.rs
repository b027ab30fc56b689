//! Taking connections in, within limits.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::Tasks;
use crate::engine::Shared;
use crate::listen::{Listener, ListenerKind, ListenerLimits};
use crate::serve::{Accepted, serve};
use crate::service::{Gate, Pass};

/// A listener, shared by all workers, with the connections that came through it.
#[derive(Debug)]
pub(super) struct Door {
    kind: ListenerKind,
    limits: ListenerLimits,
    open: Arc<Gate>,
    clients: Clients,
}

/// Without a free descriptor accepting again at once would only burn the processor.
const PAUSE: Duration = Duration::from_millis(50);

impl Door {
    pub(super) fn new(listener: &Listener) -> Self {
        Self {
            kind: listener.kind,
            limits: listener.limits,
            open: Arc::default(),
            clients: Arc::default(),
        }
    }

    /// Takes connections in for ever.
    pub(super) async fn accept(
        &self,
        listener: TcpListener,
        shared: &Arc<Shared>,
        tasks: &Tasks,
        drain: &CancellationToken,
    ) {
        let name = self.kind.name();
        let metrics = &shared.metrics;
        loop {
            let (stream, client) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) if is_the_clients(&error) => continue,
                Err(error) => {
                    tracing::warn!(listener = name, %error, "accepting pauses");
                    metrics.refused(name, "accept");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            let Some(place) = self.open.try_enter(self.limits.connections) else {
                metrics.refused(name, "connections");
                continue;
            };
            let Some(visitor) = self.visitor(shared, client.ip().to_canonical()) else {
                metrics.refused(name, "connections-per-client");
                continue;
            };
            metrics.accepted(name);
            let accepted = Accepted {
                stream,
                client,
                kind: self.kind,
                limits: self.limits,
            };
            let counted = Counted {
                shared: shared.clone(),
                name,
                _place: place,
                _visitor: visitor,
            };
            let (shared, owner, drain) = (shared.clone(), tasks.clone(), drain.clone());
            tasks.spawn_connection(async move {
                let _counted = counted;
                serve(shared, owner, drain, accepted).await;
            });
        }
    }

    /// A place among this client's connections; proxies in front of us stand for many clients.
    fn visitor(&self, shared: &Shared, address: IpAddr) -> Option<Visitor> {
        let most = self.limits.connections_per_client;
        let trusted = || {
            let nets = &shared.options.trusted_peers;
            nets.iter().any(|net| net.contains(&address))
        };
        if most == 0 || trusted() {
            return Some(Visitor(None));
        }
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let count = clients.entry(address).or_insert(0);
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(Visitor(Some((self.clients.clone(), address))))
    }
}

/// Whether an error concerns the one connection and not the listener.
fn is_the_clients(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

/// Open connections by client.
type Clients = Arc<Mutex<HashMap<IpAddr, u32>>>;

/// One of a client's connections.
struct Visitor(Option<(Clients, IpAddr)>);

impl Drop for Visitor {
    fn drop(&mut self) {
        let Some((clients, address)) = self.0.take() else {
            return;
        };
        let mut clients = clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut entry) = clients.entry(address) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
    }
}

/// An open connection, as the metrics see it.
struct Counted {
    shared: Arc<Shared>,
    name: &'static str,
    _place: Pass,
    _visitor: Visitor,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.shared.metrics.closed(self.name);
    }
}
