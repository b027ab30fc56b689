//! `AccessPolicy`.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{PathMatch, Reserved, TargetRef};

/// `spec` of an AccessPolicy: either `target_refs` or `selector`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AccessPolicySpec {
    /// Its Namespace, or Services or Ingresses in it.
    #[serde(default)]
    pub target_refs: Vec<TargetRef>,
    /// Pods of its namespace.
    #[serde(default)]
    pub selector: Option<PodSelector>,
    /// Whether plaintext is taken; absent = no opinion.
    #[serde(default)]
    pub mtls: Option<Mtls>,
    /// Exceptions by port.
    #[serde(default)]
    pub ports: Vec<PortMtls>,
    /// Absent = no opinion; present = what no rule allows is denied. Deny rules win.
    #[serde(default)]
    pub rules: Option<Vec<Rule>>,
    /// Authentication at the edge. Not enforced yet: an Ingress with it lets nobody in.
    #[serde(default)]
    pub authentication: Option<Reserved>,
    /// Log what would be denied, deny nothing.
    #[serde(default)]
    pub audit: bool,
}

/// Pods by their labels.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodSelector {
    /// All must be there; empty selects every pod.
    #[serde(default)]
    pub match_labels: BTreeMap<String, String>,
    /// Set-based requirements. Not enforced yet: such a policy is not accepted.
    #[serde(default)]
    pub match_expressions: Option<Reserved>,
}

/// Whether plaintext is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Mtls {
    /// Only mTLS.
    Strict,
    /// Both.
    Permissive,
}

/// An exception for one port of the pod.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct PortMtls {
    /// The pod's port.
    pub port: u16,
    /// What holds there.
    pub mtls: Mtls,
}

/// An authorization rule: matches when one of `from` and one of `to` match (none given = all).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Rule {
    /// What happens on a match.
    #[serde(default)]
    pub action: Action,
    /// Callers.
    #[serde(default)]
    pub from: Vec<From>,
    /// Requests.
    #[serde(default)]
    pub to: Vec<To>,
    /// Conditions on claims. Not enforced yet: an Allow rule with it never matches, a Deny rule matches without it.
    #[serde(default)]
    pub when: Option<Reserved>,
}

/// What a rule does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub enum Action {
    /// Permits.
    #[default]
    Allow,
    /// Refuses; wins over Allow.
    Deny,
}

/// Callers. Clients of an Ingress have an address and no identity.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct From {
    /// `NAMESPACE/NAME`, or `NAME` in the policy's namespace.
    #[serde(default)]
    pub service_accounts: Vec<String>,
    /// SPIFFE ids.
    #[serde(default)]
    pub identities: Vec<String>,
    /// Namespaces of callers.
    #[serde(default)]
    pub namespaces: Vec<String>,
    /// Networks (CIDR) of callers.
    #[serde(default)]
    pub ip_blocks: Vec<String>,
    /// Networks (CIDR) that are excepted.
    #[serde(default)]
    pub not_ip_blocks: Vec<String>,
}

/// Requests.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct To {
    /// Any of these; empty = all.
    #[serde(default)]
    pub methods: Vec<String>,
    /// Any of these; empty = all.
    #[serde(default)]
    pub paths: Vec<PathMatch>,
    /// Any of these; empty = all.
    #[serde(default)]
    pub hosts: Vec<String>,
    /// Any of these ports of the pod; empty = all. Not enforced for an Ingress: an Allow with it never matches, a Deny
    /// matches without it.
    #[serde(default)]
    pub ports: Vec<u16>,
}
