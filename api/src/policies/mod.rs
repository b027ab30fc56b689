//! Our policies, group `meshgate.dev/v1alpha1`: the words of their specs. What they mean is compiled elsewhere.
//!
//! A field that is part of the contract but not enforced yet parses as [`Reserved`]: its presence is known, so that the
//! control plane can say so in the object's status instead of ignoring it.

pub mod access;
pub mod backend;
pub mod crds;
pub mod duration;
pub mod rate_limit;

use serde::Deserialize;

/// What a policy is attached to, as in Gateway API; always in the policy's own namespace.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TargetRef {
    /// API group, empty for the core group.
    #[serde(default)]
    pub group: String,
    /// Kind of the target.
    pub kind: String,
    /// Name of the target.
    pub name: String,
    /// Part of the target: the name of a Service's port.
    #[serde(default)]
    pub section_name: Option<String>,
}

/// A path in a policy's match.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct PathMatch {
    /// How `value` is compared.
    #[serde(default, rename = "type")]
    pub kind: PathKind,
    /// Starts with `/`.
    pub value: String,
}

/// How a path is compared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub enum PathKind {
    /// Element-wise prefix.
    #[default]
    Prefix,
    /// The whole path.
    Exact,
}

/// A header with its value.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct HeaderMatch {
    /// Case-insensitive name.
    pub name: String,
    /// Exact value.
    pub value: String,
}

/// A field that is accepted but not enforced yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reserved;

impl<'de> Deserialize<'de> for Reserved {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        serde::de::IgnoredAny::deserialize(deserializer).map(|_| Self)
    }
}
