//! A port of a Service: its endpoints, its policy and the state that outlives a change of either.

mod gate;
mod live;
mod share;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use meshgate_routing::WorkloadId;
use meshgate_routing::upstream::{Algorithm, BreakerPolicy, RetryPolicy, Ring};

use crate::tls::origin::EndpointTls;

pub(crate) use gate::{Gate, GateRefusal, Pass};
pub(crate) use live::{EndpointLive, NoPick, Picked, ServiceLive};
pub(crate) use share::{ClientLoad, Place, Share};

/// What to build a [`Service`] from.
#[derive(Clone, Debug)]
pub struct ServiceSpec {
    /// "namespace/name:port".
    pub name: Arc<str>,
    /// What the endpoints speak.
    pub protocol: Protocol,
    /// Cluster addresses with the Service's port.
    pub addresses: Vec<SocketAddr>,
    /// Live endpoints.
    pub endpoints: Vec<EndpointSpec>,
    /// As enforced.
    pub policy: Policy,
}

/// What an endpoint speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// Sidecar: detected, and passed on as it came. Edge: HTTP/1.1, for gRPC HTTP/2.
    #[default]
    Auto,
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
    /// Bytes.
    Tcp,
}

/// One endpoint of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSpec {
    /// Address and port of the application.
    pub address: SocketAddr,
    /// The pod's UID: connections belong to this and not to a reused address.
    pub uid: Arc<str>,
    /// Name of the pod, for records.
    pub pod: Arc<str>,
    /// Set when the endpoint has a proxy that takes mTLS; then nothing else is spoken with it.
    pub identity: Option<WorkloadId>,
    /// Still answering, gets no new requests while others are ready.
    pub terminating: bool,
}

/// How a service is called. `Default` is what holds without any BackendPolicy.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Choice of the endpoint.
    pub algorithm: Algorithm,
    /// The key of [`Algorithm::ConsistentHash`].
    pub hash_on: Option<HashOn>,
    /// To a connection, handshake included.
    pub connect_timeout: Duration,
    /// From the request to the end of the response head, all attempts; `None`: unlimited.
    pub request_timeout: Option<Duration>,
    /// The same for one attempt.
    pub per_try_timeout: Option<Duration>,
    /// Without a byte in either direction (TCP, upgraded connections).
    pub idle_timeout: Option<Duration>,
    /// Further attempts.
    pub retries: RetryPolicy,
    /// Ejection of failing endpoints.
    pub breaker: BreakerPolicy,
    /// How much at once.
    pub limits: Limits,
    /// Connections to endpoints outside the mesh begin with a header that tells the client; none is shared by clients then.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Connections to endpoints outside the mesh are TLS.
    pub tls: Option<EndpointTls>,
}

/// What of a request is its key for consistent hashing. Requests without it go by load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashOn {
    /// A header field.
    Header(Box<str>),
    /// A cookie.
    Cookie(HashCookie),
    /// The client's address. TCP connections have no other key.
    ClientAddress,
    /// The first parameter of this name in the query.
    Query(Box<str>),
}

/// A cookie that is a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HashCookie {
    /// A token (RFC 6265 §4.1.1).
    pub name: Box<str>,
    /// Clients without the cookie are given one that lasts so long; zero: for the browser's session. `None`: they are given
    /// none.
    pub ttl: Option<Duration>,
}

/// Versions of the PROXY protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// How much a service gets at once from one proxy.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections, all endpoints together.
    pub connections: u32,
    /// Requests in flight. At the edge a client address that has more than a quarter of so many under way gets none of the
    /// last quarter, and does not wait: one alone cannot keep all others out.
    pub requests: u32,
    /// Requests that wait for either.
    pub pending: u32,
    /// How long they wait.
    pub pending_timeout: Duration,
}

/// The part of a service's requests that is for others: 1 / this.
const SHARE_FOR_OTHERS: u32 = 4;

impl Limits {
    /// Requests that are not for client addresses with more than [`requests_per_client`](Self::requests_per_client).
    pub(crate) fn requests_for_others(&self) -> u32 {
        self.requests / SHARE_FOR_OTHERS
    }

    /// Requests that a client address may have under way before the last places and the line are for others.
    pub(crate) fn requests_per_client(&self) -> u32 {
        // One may always wait for one.
        (self.requests / SHARE_FOR_OTHERS).max(1)
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            algorithm: Algorithm::default(),
            hash_on: None,
            connect_timeout: Duration::from_secs(5),
            request_timeout: Some(Duration::from_secs(300)),
            per_try_timeout: None,
            idle_timeout: Some(Duration::from_secs(3600)),
            retries: RetryPolicy::default(),
            breaker: BreakerPolicy::default(),
            limits: Limits {
                connections: 1024,
                requests: 1024,
                pending: 256,
                pending_timeout: Duration::from_secs(3),
            },
            proxy_protocol: None,
            tls: None,
        }
    }
}

/// A service with its live state.
#[derive(Debug)]
pub struct Service {
    spec: ServiceSpec,
    endpoints: Vec<Endpoint>,
    /// With consistent hashing.
    ring: Option<Arc<Ring>>,
    live: Arc<ServiceLive>,
}

/// An endpoint with its live state: requests in flight, breaker, connections. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Endpoint(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    spec: EndpointSpec,
    live: Arc<EndpointLive>,
}

impl Service {
    /// Builds a service. What `previous` (the same service before the change) knows of endpoints with the same UID
    /// and address stays: requests in flight, breaker and connections; so do the retry budget and the limits, and the
    /// sessions of TLS that asks for the same proof.
    pub fn new(mut spec: ServiceSpec, previous: Option<&Self>) -> Self {
        if let Some(previous) = previous.filter(|previous| previous.policy().tls == spec.policy.tls)
        {
            spec.policy.tls = previous.policy().tls.clone();
        }
        let live = match previous {
            Some(previous) => previous.live.clone(),
            None => Arc::new(ServiceLive::new(&spec.policy)),
        };
        live.retune(&spec.policy);
        let endpoints: Vec<Endpoint> = spec
            .endpoints
            .iter()
            .map(|endpoint| {
                Endpoint(Arc::new(Parts {
                    live: previous
                        .and_then(|previous| previous.same(endpoint, &spec.policy))
                        .unwrap_or_default(),
                    spec: endpoint.clone(),
                }))
            })
            .collect();
        if let Some(previous) = previous {
            let gone = previous.endpoints.iter().filter(|old| {
                !endpoints
                    .iter()
                    .any(|new| Arc::ptr_eq(new.live(), old.live()))
            });
            for endpoint in gone {
                live.forget(endpoint.live());
            }
        }
        Self {
            ring: ring(&spec, previous),
            spec,
            endpoints,
            live,
        }
    }

    /// The live state of the same pod at the same address, reached the same way: a connection whose peer proved something
    /// else than what is asked for now must not be used again.
    fn same(&self, wanted: &EndpointSpec, policy: &Policy) -> Option<Arc<EndpointLive>> {
        let same_tls = wanted.identity.is_some() || self.policy().tls == policy.tls;
        self.endpoints
            .iter()
            .find(|endpoint| {
                let spec = endpoint.spec();
                same_tls
                    && spec.uid == wanted.uid
                    && spec.address == wanted.address
                    && spec.identity == wanted.identity
            })
            .map(|endpoint| endpoint.live().clone())
    }

    /// "namespace/name:port".
    pub fn name(&self) -> &Arc<str> {
        &self.spec.name
    }

    /// Cluster addresses with the Service's port.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.spec.addresses
    }

    /// What the endpoints speak.
    pub fn protocol(&self) -> Protocol {
        self.spec.protocol
    }

    /// As enforced.
    pub fn policy(&self) -> &Policy {
        &self.spec.policy
    }

    /// In the order of the configuration.
    pub fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    pub(crate) fn live(&self) -> &Arc<ServiceLive> {
        &self.live
    }
}

/// The ring of a service, if it has one: the previous one while the endpoints are the same.
fn ring(spec: &ServiceSpec, previous: Option<&Service>) -> Option<Arc<Ring>> {
    if spec.policy.algorithm != Algorithm::ConsistentHash {
        return None;
    }
    let addresses = || spec.endpoints.iter().map(|endpoint| endpoint.address);
    let kept = previous.and_then(|previous| previous.ring.clone());
    kept.filter(|ring| ring.is_of(addresses()))
        .or_else(|| Some(Arc::new(Ring::new(addresses()))))
}

impl Endpoint {
    /// Address and port of the application.
    pub fn address(&self) -> SocketAddr {
        self.0.spec.address
    }

    /// As configured.
    pub fn spec(&self) -> &EndpointSpec {
        &self.0.spec
    }

    pub(crate) fn live(&self) -> &Arc<EndpointLive> {
        &self.0.live
    }
}
