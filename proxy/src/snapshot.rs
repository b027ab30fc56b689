//! Everything a proxy knows, as one immutable value. Readers take it for the length of a request, the writer swaps it.

use std::net::SocketAddr;
use std::sync::Arc;

use meshgate_routing::permit::AccessRules;
use meshgate_routing::route::RouteTable;
use meshgate_routing::{Configured, WorkloadId};

use crate::limits::RateLimit;
use crate::service::Service;
use crate::tls::Certificates;

/// What is enforced at one moment. `Default` knows nothing and refuses everything.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// The generation of the control plane that this enforces.
    pub generation: u64,
    /// Edge: hosts, paths, and what else rules demand.
    pub routes: RouteTable<Rule>,
    /// All known services.
    pub services: Services,
    /// Edge: certificates by server name.
    pub certificates: Certificates,
    /// Sidecar: what its own pod is and demands.
    pub workload: Workload,
}

/// Where the requests go that a rule takes.
#[derive(Clone, Debug)]
pub struct Rule {
    /// The service, or why there is none.
    pub target: Target,
    /// The object the rule comes from: "ingress/NAMESPACE/NAME".
    pub origin: Arc<str>,
    /// Index of the rule in its object.
    pub index: u32,
    /// All must permit a request.
    pub limits: Vec<Arc<RateLimit>>,
    /// Who may ask, shared by all rules of one policy; `None` when no policy has an opinion.
    pub access: Option<Arc<AccessRules>>,
}

/// What a rule points to.
#[derive(Clone, Debug)]
pub enum Target {
    /// Name in [`Services`]: "namespace/name:port".
    Service(Arc<str>),
    /// Answered 503 with this text.
    Problem(Arc<str>),
}

/// Services by name, by cluster address and by endpoint.
#[derive(Debug, Default)]
pub struct Services {
    by_name: Configured<Arc<str>, Arc<Service>>,
    by_address: Configured<SocketAddr, Arc<Service>>,
    by_endpoint: Configured<SocketAddr, (Arc<Service>, usize)>,
}

impl Services {
    /// Indexes services. `by_endpoint` is needed by sidecars only, for connections straight to a pod.
    pub fn new(services: impl IntoIterator<Item = Arc<Service>>, by_endpoint: bool) -> Self {
        let mut index = Self::default();
        for service in services {
            for address in service.addresses() {
                index.by_address.insert(*address, service.clone());
            }
            if by_endpoint {
                for (position, endpoint) in service.endpoints().iter().enumerate() {
                    index
                        .by_endpoint
                        .insert(endpoint.address(), (service.clone(), position));
                }
            }
            index.by_name.insert(service.name().clone(), service);
        }
        index
    }

    /// By "namespace/name:port".
    pub fn named(&self, name: &str) -> Option<&Arc<Service>> {
        self.by_name.get(name)
    }

    /// By cluster address and port.
    pub fn at(&self, address: SocketAddr) -> Option<&Arc<Service>> {
        self.by_address.get(&address)
    }

    /// By the address of one of its endpoints, with the endpoint's index.
    pub fn of_endpoint(&self, address: SocketAddr) -> Option<(&Arc<Service>, usize)> {
        let (service, index) = self.by_endpoint.get(&address)?;
        Some((service, *index))
    }

    /// All of them, in no order.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.by_name.values()
    }
}

/// What a sidecar must know of its own pod.
#[derive(Clone, Debug, Default)]
pub struct Workload {
    /// Who it is.
    pub identity: Option<WorkloadId>,
    /// Whether plaintext is refused.
    pub mtls: Mtls,
    /// Exceptions by port.
    pub port_mtls: Vec<(u16, Mtls)>,
    /// Who may do what.
    pub access: AccessRules,
}

/// Whether plaintext is refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mtls {
    /// Plaintext is served as well.
    #[default]
    Permissive,
    /// mTLS only.
    Strict,
}

impl Workload {
    /// The mode of a port.
    pub fn mtls(&self, port: u16) -> Mtls {
        self.port_mtls
            .iter()
            .find(|(other, _)| *other == port)
            .map_or(self.mtls, |(_, mode)| *mode)
    }
}
