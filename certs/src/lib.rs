//! Certificates: workload identity (SPIFFE), the mesh's authority, signing requests, renewal, and the cluster's own PKI.
//!
//! Two trust roots exist and never mix: the *cluster CA* (files, [`cluster`]) signs the API server, the components and the
//! nodes; the *mesh CA* ([`authority`]) signs workloads only. Everything here is synchronous; time and chance are arguments.

pub mod authority;
pub mod client;
pub mod cluster;
pub mod credential;
pub mod csr;
pub mod expiry;
pub mod identity;
pub mod origin;
mod pem;
pub mod renewal;
mod signatures;
pub mod trust;
pub mod verify;
