//! Connections to endpoints that begin with a PROXY header: each speaks for one client, and is that client's alone.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use meshgate_codec::proxy_protocol::{Origin, Transport, encode_v1, encode_v2};
use tokio::sync::Semaphore;

use crate::serve::Connection;
use crate::service::{EndpointLive, ProxyProtocol};

/// A client's connection, as those connections to endpoints know it that are made for it alone. They go with it.
#[derive(Debug, Default)]
pub(crate) struct Downstream {
    /// Where they wait.
    endpoints: Mutex<Vec<Weak<EndpointLive>>>,
    /// One HTTP/2 connection is made at a time; the client's other requests wait for it and share it.
    making: OnceLock<Arc<Semaphore>>,
}

impl Downstream {
    pub(super) fn making(&self) -> &Arc<Semaphore> {
        self.making.get_or_init(|| Arc::new(Semaphore::new(1)))
    }

    /// A connection of its own may wait there from now on.
    fn waits_at(&self, endpoint: &Weak<EndpointLive>) {
        let mut endpoints = self
            .endpoints
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if !endpoints.iter().any(|known| known.ptr_eq(endpoint)) {
            endpoints.retain(|known| known.strong_count() > 0);
            endpoints.push(endpoint.clone());
        }
    }
}

impl Drop for Downstream {
    fn drop(&mut self) {
        let endpoints = self
            .endpoints
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        for endpoint in endpoints.iter().filter_map(Weak::upgrade) {
            endpoint.pool.give_up_orphans();
        }
    }
}

/// Whose alone a connection is, and in which words that was said.
#[derive(Clone, Debug)]
pub(crate) struct Sole {
    client: Weak<Downstream>,
    version: ProxyProtocol,
}

impl Sole {
    pub(super) fn new(client: &Arc<Downstream>, version: ProxyProtocol) -> Self {
        let client = Arc::downgrade(client);
        Self { client, version }
    }

    /// Whether a connection may be used by who wants one.
    pub(super) fn fits(of: Option<&Self>, wanted: Option<&Self>) -> bool {
        match (of, wanted) {
            (None, None) => true,
            (Some(of), Some(wanted)) => {
                of.version == wanted.version && of.client.ptr_eq(&wanted.client)
            }
            _ => false,
        }
    }

    /// Whether nobody will ever use it again.
    pub(super) fn is_orphan(of: Option<&Self>) -> bool {
        of.is_some_and(|sole| sole.client.strong_count() == 0)
    }

    /// A connection of the client's own may wait there from now on; false when the client has gone.
    pub(super) fn waits_at(of: Option<&Self>, endpoint: &Weak<EndpointLive>) -> bool {
        let Some(sole) = of else { return true };
        let client = sole.client.upgrade();
        client.map(|client| client.waits_at(endpoint)).is_some()
    }
}

/// What such a connection begins with: the client as it is known here, and what it connected to.
pub(super) fn header(version: ProxyProtocol, connection: &Connection) -> Vec<u8> {
    let plain = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
    let origin = Origin::Client {
        transport: Transport::Stream,
        source: plain(connection.client),
        destination: plain(connection.destination.unwrap_or(connection.reached)),
    };
    let mut header = Vec::new();
    match version {
        ProxyProtocol::V1 => encode_v1(&origin, &mut header),
        ProxyProtocol::V2 => encode_v2(&origin, &mut header),
    }
    header
}
