//! Taking connections in, within limits.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::sync::Arc;

use futures::FutureExt as _;
use ipnet::IpNet;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::Tasks;
use super::clients::{Clients, Visit};
use super::proxied::{Told, take_header};
use crate::clock;
use crate::engine::Shared;
use crate::listen::{Listener, ListenerKind, ListenerLimits};
use crate::memory::Pressure;
use crate::serve::{Accepted, serve};
use crate::service::{ClientLoad, Gate, Pass};

/// A listener, shared by all workers, with the connections that came through it.
#[derive(Debug)]
pub(super) struct Door {
    name: Arc<str>,
    kind: ListenerKind,
    limits: ListenerLimits,
    proxies: Vec<IpNet>,
    open: Arc<Gate>,
    clients: Clients,
}

impl Door {
    pub(super) fn new(listener: &Listener) -> Self {
        Self {
            name: listener.name.clone(),
            kind: listener.kind,
            limits: listener.limits,
            proxies: listener.proxies.clone(),
            open: Arc::default(),
            clients: Clients::default(),
        }
    }

    /// What its owner calls it.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// What its connections mean.
    pub(super) fn kind(&self) -> ListenerKind {
        self.kind
    }

    /// Takes connections in for ever.
    pub(super) async fn accept(
        self: &Arc<Self>,
        listener: &TcpListener,
        shared: &Arc<Shared>,
        tasks: &Tasks,
        drain: &CancellationToken,
    ) {
        let mut was_scarce = false;
        loop {
            let mut is_scarce = match listener.accept().await {
                Ok((stream, client)) => {
                    let newest = stream.as_raw_fd();
                    let taken = self.admit((stream, client), shared, tasks, drain);
                    let descriptors = &shared.descriptors;
                    taken && descriptors.is_scarce(newest) || descriptors.is_spent(newest)
                }
                Err(error) if is_the_clients(&error) => false,
                Err(error) => {
                    tracing::debug!(listener = self.name(), %error, "accepting fails");
                    shared.metrics.refused(self.kind.name(), "accept");
                    true
                }
            };
            let any = listener.as_fd();
            if was_scarce && !is_scarce {
                match shared.descriptors.has_room(any) {
                    // For the next one that waits, too.
                    true => shared.descriptors.freed(),
                    false => is_scarce = true,
                }
            }
            if is_scarce {
                shared.descriptors.wait(any, self.name()).await;
            }
            was_scarce = is_scarce;
        }
    }

    /// Takes in who stands before a door that closes: the kernel would reset those that it has let in.
    pub(super) fn accept_rest(
        self: &Arc<Self>,
        listener: TcpListener,
        shared: &Arc<Shared>,
        tasks: &Tasks,
        drain: &CancellationToken,
    ) -> io::Result<()> {
        // The runtime may not have heard of them yet.
        let listener = listener.into_std()?;
        while let Ok((stream, client)) = listener.accept() {
            stream.set_nonblocking(true)?;
            let stream = TcpStream::from_std(stream)?;
            self.admit((stream, client), shared, tasks, drain);
        }
        Ok(())
    }

    /// Serves a connection in a task of its own, or closes it where there is no place; whether there was one.
    fn admit(
        self: &Arc<Self>,
        (stream, peer): (TcpStream, SocketAddr),
        shared: &Arc<Shared>,
        tasks: &Tasks,
        drain: &CancellationToken,
    ) -> bool {
        let (name, metrics) = (self.kind.name(), &shared.metrics);
        let refused = |why| {
            metrics.refused(name, why);
            false
        };
        if shared.memory.pressure(clock::now()) == Pressure::Critical {
            return refused("memory");
        }
        if shared.descriptors.is_spent(stream.as_raw_fd()) {
            return refused("descriptors");
        }
        let Some(place) = self.open.try_enter(self.limits.connections) else {
            return refused("connections");
        };
        let address = peer.ip().to_canonical();
        let is_proxy = self.proxies.iter().any(|net| net.contains(&address));
        // Who stands behind a proxy is counted when it is known.
        let visitor = match is_proxy {
            true => Some(Visitor::default()),
            false => self.visitor(shared, address),
        };
        let Some(visitor) = visitor else {
            return refused("connections-per-client");
        };
        metrics.accepted(name);
        let accepted = Accepted {
            stream,
            client: peer,
            client_load: visitor.load(),
            reached: None,
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
        if is_proxy {
            let door = self.clone();
            tasks.spawn_connection(async move {
                let _counted = counted;
                let introduced = Box::pin(door.introduced(&shared, accepted)).await;
                if let Some((accepted, _visitor)) = introduced {
                    serve(shared, owner, drain, accepted).await;
                }
            });
        } else {
            let serving = serve(shared, owner, drain, accepted);
            tasks.spawn_connection(serving.map(move |()| drop(counted)));
        }
        true
    }

    /// The connection as a proxy's header tells it, and its client's place. The client is the one that counts from here
    /// on: for limits, records, access and what endpoints are told.
    async fn introduced(
        &self,
        shared: &Shared,
        mut accepted: Accepted,
    ) -> Option<(Accepted, Visitor)> {
        let (name, metrics) = (self.kind.name(), &shared.metrics);
        let taking = take_header(&mut accepted.stream);
        let told = match tokio::time::timeout(self.limits.handshake_timeout, taking).await {
            Ok(Ok(told)) => told,
            Ok(Err(error)) => {
                tracing::debug!(proxy = %accepted.client, %error, "no PROXY header");
                metrics.refused(name, "proxy-header");
                return None;
            }
            Err(_) => {
                metrics.refused(name, "proxy-header-timeout");
                return None;
            }
        };
        let Told::Client { source, reached } = told else {
            return Some((accepted, Visitor::default()));
        };
        let Some(visitor) = self.visitor(shared, source.ip().to_canonical()) else {
            metrics.refused(name, "connections-per-client");
            return None;
        };
        accepted.client = source;
        accepted.client_load = visitor.load();
        accepted.reached = Some(reached);
        Some((accepted, visitor))
    }

    /// A place among this client's connections; proxies in front of us stand for many clients.
    fn visitor(&self, shared: &Shared, address: IpAddr) -> Option<Visitor> {
        let most = self.limits.connections_per_client;
        let trusted = || {
            let nets = &shared.options.trusted_peers;
            nets.iter().any(|net| net.contains(&address))
        };
        if trusted() {
            return Some(Visitor::default());
        }
        let here = match most {
            0 => None,
            most => Some(self.clients.enter(address, most)?),
        };
        let anywhere = match self.kind.is_edge() {
            true => shared.clients.enter(address, u32::MAX),
            // Within the mesh one address stands for all that is behind it.
            false => None,
        };
        Some(Visitor {
            _here: here,
            anywhere,
        })
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

/// One of a client's connections: among those of its listener, and of the edge. Neither counts where an address stands
/// for many clients.
#[derive(Default)]
struct Visitor {
    _here: Option<Visit>,
    anywhere: Option<Visit<Arc<ClientLoad>>>,
}

impl Visitor {
    /// What is counted of the client's requests.
    fn load(&self) -> Option<Arc<ClientLoad>> {
        let visit = self.anywhere.as_ref();
        visit.map(|visit| visit.shared.clone())
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
        self.shared.descriptors.freed();
    }
}
