//! May this request go on: access rules and rate limits.

pub mod access;
mod buckets;
pub mod lease;

pub mod limit;
pub mod local;
pub mod owner;

#[cfg(test)]
mod simulation;
mod window;

pub use access::{AccessRequest, AccessRule, AccessRules, AccessVerdict};
pub use limit::{Limit, Permit, Refusal};
pub use window::Rate;
