//! What travels over the push stream, decoded but not yet believed.

use meshgate_api::push as wire;
use prost::Message as _;
use wire::ResourceBody as _;

/// The resource types a proxy may subscribe to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    // In this order they are asked for: a rule then finds the service it names.
    /// TLS certificates of the edge.
    Certificate,
    /// A port of a Service with its endpoints.
    Service,
    /// What a sidecar must know of its own pod.
    Workload,
    /// Host names of the edge with their rules.
    EdgeHost,
}

impl Kind {
    const ALL: [Self; 4] = [
        Self::EdgeHost,
        Self::Certificate,
        Self::Service,
        Self::Workload,
    ];

    /// The `type_url` of its requests, responses and bodies.
    pub fn type_url(self) -> String {
        match self {
            Self::EdgeHost => wire::EdgeHost::resource_type_url(),
            Self::Certificate => wire::Certificate::resource_type_url(),
            Self::Service => wire::Service::resource_type_url(),
            Self::Workload => wire::Workload::resource_type_url(),
        }
    }

    /// The kind that a `type_url` names, if this proxy knows it.
    pub fn of_type_url(type_url: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.type_url() == type_url)
    }
}

/// One resource as it came over the wire.
#[derive(Debug, Clone)]
pub enum Body {
    /// See [`Kind::EdgeHost`].
    EdgeHost(wire::EdgeHost),
    /// See [`Kind::Certificate`].
    Certificate(wire::Certificate),
    /// See [`Kind::Service`].
    Service(Box<wire::Service>),
    /// See [`Kind::Workload`].
    Workload(wire::Workload),
}

impl Body {
    /// Decodes the body of a resource that came in a response of `kind`.
    pub fn decode(kind: Kind, any: Option<&prost_types::Any>) -> Result<Self, UnreadableBody> {
        let any = any.ok_or(UnreadableBody::Missing)?;
        if any.type_url != kind.type_url() {
            return Err(UnreadableBody::WrongType(any.type_url.clone()));
        }
        let bytes = any.value.as_slice();
        let body = match kind {
            Kind::EdgeHost => wire::EdgeHost::decode(bytes).map(Self::EdgeHost),
            Kind::Certificate => wire::Certificate::decode(bytes).map(Self::Certificate),
            Kind::Service => wire::Service::decode(bytes).map(|s| Self::Service(Box::new(s))),
            Kind::Workload => wire::Workload::decode(bytes).map(Self::Workload),
        };
        body.map_err(UnreadableBody::Undecodable)
    }
}

/// Why a resource's body cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum UnreadableBody {
    /// There is none.
    #[error("the resource has no body")]
    Missing,
    /// It is of another type than its response.
    #[error("the body is a {0:?}")]
    WrongType(String),
    /// Not protobuf of that type.
    #[error("the body does not decode: {0}")]
    Undecodable(prost::DecodeError),
}

/// What one response changes: to be enforced in one swap.
#[derive(Debug, Default)]
pub struct Changes {
    /// The generation that is enforced with them.
    pub generation: u64,
    /// New or changed resources by name.
    pub updated: Vec<(String, Body)>,
    /// Names that are gone, or that were asked for and do not exist.
    pub removed: Vec<(Kind, String)>,
}

impl Changes {
    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.updated.is_empty() && self.removed.is_empty()
    }
}
