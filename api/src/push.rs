//! The pushed configuration: generated from `proto/push.proto`, plus what both ends must compute alike.

#[expect(clippy::allow_attributes, reason = "generated code")]
mod generated {
    tonic::include_proto!("meshgate.push.v1alpha1");
}
pub use generated::*;

use std::fmt;

/// Never prints the private key.
impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate")
            .field("hosts", &self.hosts)
            .finish_non_exhaustive()
    }
}

/// A resource type that travels over [`push_client::PushClient::delta`].
pub trait ResourceBody: prost::Message + prost::Name + Default {
    /// The `type_url` of requests, responses and bodies.
    fn resource_type_url() -> String {
        format!("type.meshgate.dev/{}", Self::full_name())
    }
}

impl ResourceBody for EdgeHost {}
impl ResourceBody for Service {}
impl ResourceBody for Certificate {}
impl ResourceBody for Workload {}
