//! The cluster's objects as this part sees them: trimmed to what the compiler reads, parsed once at the border.

mod kubernetes;
mod policy;
mod ports;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

pub(crate) use policy::{
    AccessPolicy, BackendPolicy, Checked, Difference, Policy, RateLimitPolicy, without_last_dot,
};
pub(crate) use ports::PortSet;

use crate::EdgeAddress;

/// Namespace and name; the namespace of a cluster-wide object is empty.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Name {
    pub(crate) namespace: Arc<str>,
    pub(crate) name: Arc<str>,
}

impl Name {
    pub(crate) fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    /// Whether an object of its kind can have it (RFC 1123 subdomain). Anything else would break out of a field selector.
    pub(crate) fn is_subdomain(&self) -> bool {
        let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let label = |label: &str| {
            let is_dash = |at: Option<u8>| at == Some(b'-');
            let (first, last) = (label.bytes().next(), label.bytes().last());
            first.is_some() && !is_dash(first) && !is_dash(last) && label.bytes().all(inner)
        };
        self.name.len() <= 253 && self.name.split('.').all(label)
    }

    /// Another object of the same namespace.
    pub(crate) fn sibling(&self, name: &str) -> Self {
        Self {
            namespace: self.namespace.clone(),
            name: name.into(),
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// The kinds that are watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    Service,
    EndpointSlice,
    Pod,
    Ingress,
    IngressClass,
    Secret,
    ConfigMap,
    RateLimitPolicy,
    BackendPolicy,
    AccessPolicy,
}

/// One object of any kind.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Object {
    Service(Service),
    EndpointSlice(EndpointSlice),
    Pod(Pod),
    Ingress(Ingress),
    IngressClass(IngressClass),
    Secret(Secret),
    ConfigMap(ConfigMap),
    RateLimitPolicy(RateLimitPolicy),
    BackendPolicy(Box<BackendPolicy>),
    AccessPolicy(AccessPolicy),
}

/// What a watch reports.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    Apply(Name, Box<Object>),
    Delete(Kind, Name),
    /// A Secret or a ConfigMap that is watched by name cannot be read, for this reason.
    Unreadable(Kind, Name, Arc<str>),
    /// A complete list ended: whatever else of this kind was known is gone.
    Listed(Kind, BTreeSet<Name>),
}

/// What identifies one life of an object, and orders it by age.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Meta {
    pub(crate) uid: String,
    /// `metadata.generation`: rises when the spec changes.
    pub(crate) generation: i64,
    /// Unix time in seconds; the oldest wins conflicts.
    pub(crate) created_unix_s: i64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Service {
    pub(crate) ports: Vec<ServicePort>,
    /// Without "None".
    pub(crate) cluster_ips: Vec<String>,
    pub(crate) selector: BTreeMap<String, String>,
    /// ExternalName services cannot be called: they have no endpoints of ours.
    pub(crate) external_name: bool,
    pub(crate) opaque_ports: PortSet,
}

/// A TCP port of a Service; others are not kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServicePort {
    pub(crate) name: String,
    pub(crate) port: u16,
    pub(crate) app_protocol: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EndpointSlice {
    /// Name of the Service, in the same namespace.
    pub(crate) service: Arc<str>,
    /// Port name to number.
    pub(crate) ports: Vec<(String, u16)>,
    pub(crate) endpoints: Vec<SliceEndpoint>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SliceEndpoint {
    pub(crate) address: String,
    pub(crate) readiness: Readiness,
    pub(crate) pod: Option<PodRef>,
    pub(crate) node: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Readiness {
    Ready,
    /// Shutting down but still answering.
    Terminating,
    NotReady,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PodRef {
    pub(crate) name: Arc<str>,
    pub(crate) uid: String,
}

/// A live pod with a sidecar; others are not kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pod {
    pub(crate) uid: String,
    pub(crate) service_account: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) addresses: Vec<String>,
    pub(crate) node: String,
    /// Ports whose traffic bypasses the sidecar: called in plain.
    pub(crate) skip_inbound: PortSet,
    /// Ports where nobody looks at the bytes.
    pub(crate) opaque: PortSet,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ingress {
    pub(crate) meta: Meta,
    pub(crate) class: ClassName,
    pub(crate) default_backend: Option<Backend>,
    pub(crate) rules: Vec<IngressRule>,
    pub(crate) tls: Vec<IngressTls>,
    /// `status.loadBalancer.ingress`.
    pub(crate) addresses: Vec<EdgeAddress>,
}

/// How an Ingress names its class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ClassName {
    /// `spec.ingressClassName`.
    Field(String),
    /// The annotation from before that field; it need not name an IngressClass object.
    Annotation(String),
    /// The default class.
    Absent,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IngressRule {
    /// Lower case; `*` when the rule has none.
    pub(crate) host: Arc<str>,
    pub(crate) paths: Vec<IngressPath>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IngressPath {
    pub(crate) exact: bool,
    pub(crate) value: String,
    pub(crate) backend: Backend,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Backend {
    Service {
        name: Arc<str>,
        port: PortRef,
    },
    /// Another kind of object, as "KIND/NAME".
    Resource(String),
    /// Neither.
    Nothing,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PortRef {
    Number(u16),
    Name(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IngressTls {
    /// Lower case; empty = all hosts of the rules.
    pub(crate) hosts: Vec<Arc<str>>,
    pub(crate) secret: Option<Arc<str>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IngressClass {
    /// `spec.controller` is ours.
    pub(crate) ours: bool,
    pub(crate) default: bool,
}

/// A Secret that something refers to.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret {
    pub(crate) certificate: Vec<u8>,
    pub(crate) key: Vec<u8>,
    /// `ca.crt`, if it is there.
    pub(crate) authorities: Option<Authorities>,
}

/// A ConfigMap that a policy refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ConfigMap {
    /// `ca.crt`, if it is there.
    pub(crate) authorities: Option<Authorities>,
}

/// Usable certificates, PEM and nothing else; or why there are none. Many Services may hold them.
pub(crate) type Authorities = Result<Arc<str>, String>;

/// Never prints the key.
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secret").finish_non_exhaustive()
    }
}

/// What is known of an object that something refers to. Not in the map: not read yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Known<T> {
    Missing,
    /// Nobody knows whether it exists; why not.
    Unreadable(Arc<str>),
    Present(T),
}

/// All objects. Ordered maps: those of a namespace are a range.
#[derive(Debug, Default)]
pub(crate) struct Objects {
    pub(crate) services: BTreeMap<Name, Service>,
    pub(crate) slices: BTreeMap<Name, EndpointSlice>,
    pub(crate) pods: BTreeMap<Name, Pod>,
    pub(crate) ingresses: BTreeMap<Name, Ingress>,
    pub(crate) classes: BTreeMap<Name, IngressClass>,
    pub(crate) secrets: BTreeMap<Name, Known<Secret>>,
    pub(crate) config_maps: BTreeMap<Name, Known<ConfigMap>>,
    pub(crate) rate_limit_policies: BTreeMap<Name, RateLimitPolicy>,
    pub(crate) backend_policies: BTreeMap<Name, BackendPolicy>,
    pub(crate) access_policies: BTreeMap<Name, AccessPolicy>,
}

impl Objects {
    /// Names of all that are known of `kind`.
    pub(crate) fn names(&self, kind: Kind) -> Vec<Name> {
        match kind {
            Kind::Service => self.services.keys().cloned().collect(),
            Kind::EndpointSlice => self.slices.keys().cloned().collect(),
            Kind::Pod => self.pods.keys().cloned().collect(),
            Kind::Ingress => self.ingresses.keys().cloned().collect(),
            Kind::IngressClass => self.classes.keys().cloned().collect(),
            Kind::Secret => self.secrets.keys().cloned().collect(),
            Kind::ConfigMap => self.config_maps.keys().cloned().collect(),
            Kind::RateLimitPolicy => self.rate_limit_policies.keys().cloned().collect(),
            Kind::BackendPolicy => self.backend_policies.keys().cloned().collect(),
            Kind::AccessPolicy => self.access_policies.keys().cloned().collect(),
        }
    }
}

/// The entries of one namespace.
pub(crate) fn in_namespace<'a, T>(
    map: &'a BTreeMap<Name, T>,
    namespace: &str,
) -> impl Iterator<Item = (&'a Name, &'a T)> + use<'a, T> {
    let first = Name::new(namespace, "");
    let namespace = first.namespace.clone();
    map.range(first..)
        .take_while(move |(name, _)| name.namespace == namespace)
}
