//! `RateLimitPolicy`.

use serde::Deserialize;

use super::{HeaderMatch, PathMatch, TargetRef, duration::GatewayDuration};

/// `spec` of a RateLimitPolicy.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RateLimitPolicySpec {
    /// What it limits.
    pub target_refs: Vec<TargetRef>,
    /// All must permit; the first that refuses is named in the answer.
    pub limits: Vec<Limit>,
}

/// One limit.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Limit {
    /// Unique in the policy.
    pub name: String,
    /// Only these requests count; absent = all.
    #[serde(default, rename = "match")]
    pub matches: Option<LimitMatch>,
    /// What requests are told apart by; empty = one bucket for all.
    #[serde(default)]
    pub key: Vec<KeyPart>,
    /// How many requests are permitted `per`.
    pub requests: u64,
    /// The window.
    #[serde(default = "one_second")]
    pub per: GatewayDuration,
    /// Extra tokens that may pile up.
    #[serde(default)]
    pub burst: u64,
    /// Where the quota is counted.
    #[serde(default)]
    pub scope: Scope,
    /// When the owner of a global quota cannot be reached.
    #[serde(default)]
    pub on_failure: OnFailure,
    /// Count and report, never refuse.
    #[serde(default)]
    pub shadow: bool,
}

fn one_second() -> GatewayDuration {
    GatewayDuration(std::time::Duration::from_secs(1))
}

/// Which requests a limit counts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct LimitMatch {
    /// Any of these; empty = all.
    #[serde(default)]
    pub paths: Vec<PathMatch>,
    /// Any of these; empty = all.
    #[serde(default)]
    pub methods: Vec<String>,
    /// All of these.
    #[serde(default)]
    pub headers: Vec<HeaderMatch>,
}

/// A part of a bucket's key.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum KeyPart {
    /// The client's address, cut to a prefix.
    #[serde(rename_all = "camelCase")]
    ClientAddress {
        /// Bits of an IPv4 address that count.
        #[serde(default = "all_v4")]
        prefix_v4: u8,
        /// Bits of an IPv6 address that count.
        #[serde(default = "all_v6")]
        prefix_v6: u8,
    },
    /// A request header's value.
    Header(String),
    /// The verified identity of the peer.
    Identity {},
    /// A claim of the verified token. Not enforced yet.
    Claim(String),
    /// The path.
    Path {},
}

fn all_v4() -> u8 {
    32
}

fn all_v6() -> u8 {
    128
}

/// Where a quota is counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub enum Scope {
    /// Exact over all replicas.
    #[default]
    Global,
    /// Each proxy on its own.
    Local,
}

/// What happens while the owner of a global quota cannot be reached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub enum OnFailure {
    /// Each replica permits quota / replicas.
    #[default]
    LocalShare,
    /// Everything is permitted.
    Open,
    /// Nothing is permitted.
    Closed,
}
