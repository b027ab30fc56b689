//! The proxies' side of the control plane, shared by edge and sidecar: identity, pushed configuration, leased quotas.
//!
//! Wire types end here. What is pushed is converted ([`convert`]) into the types the engine enforces, with errors that
//! name the field; what is refused is answered by name. Everything dials on its own and keeps the last good state: a
//! proxy serves on without a control plane.

mod backoff;
pub mod convert;
pub mod dial;
#[cfg(any(test, feature = "fake-control"))]
pub mod fake;
pub mod identity;
mod ledger;
pub mod link;
pub mod mesh;
mod metrics;
mod quota;
pub mod report;
pub mod resource;
pub mod stream;

pub(crate) use backoff::Backoff;

#[cfg(test)]
mod tests;
