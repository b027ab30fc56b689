//! The name of a workload, as authorization sees it.

use std::fmt;
use std::sync::Arc;

use thiserror::Error;

/// `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`: who a workload is.
///
/// Holding one says nothing about proof: the engine makes them from verified certificates only.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkloadId {
    uri: Arc<str>,
    /// Byte ranges of the parts within `uri`.
    trust_domain_end: usize,
    namespace_end: usize,
}

const SCHEME: &str = "spiffe://";
const NAMESPACE: &str = "/ns/";
const ACCOUNT: &str = "/sa/";
/// Longest SPIFFE ID (SPIFFE-ID §2.3).
const LENGTH_MAX_BYTES: usize = 2048;

/// Why a text is no [`WorkloadId`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "{text:?} is no workload identity: expected spiffe://<trust domain>/ns/<namespace>/sa/<service account>"
)]
pub struct NotAnIdentity {
    text: String,
}

impl WorkloadId {
    /// Parses a SPIFFE ID of a Kubernetes workload.
    pub fn parse(uri: &str) -> Result<Self, NotAnIdentity> {
        let refused = || NotAnIdentity {
            text: uri.chars().take(128).collect(),
        };
        if uri.len() > LENGTH_MAX_BYTES {
            return Err(refused());
        }
        let rest = uri.strip_prefix(SCHEME).ok_or_else(refused)?;
        let (trust_domain, path) = rest.split_once(NAMESPACE).ok_or_else(refused)?;
        let (namespace, account) = path.split_once(ACCOUNT).ok_or_else(refused)?;
        if ![trust_domain, namespace, account].into_iter().all(is_name) {
            return Err(refused());
        }
        let trust_domain_end = SCHEME.len() + trust_domain.len();
        Ok(Self {
            namespace_end: trust_domain_end + NAMESPACE.len() + namespace.len(),
            trust_domain_end,
            uri: uri.into(),
        })
    }

    /// The whole URI.
    pub fn as_str(&self) -> &str {
        &self.uri
    }

    /// The whole URI, shared.
    pub fn shared(&self) -> Arc<str> {
        self.uri.clone()
    }

    /// The part that names whose authority vouches for it.
    pub fn trust_domain(&self) -> &str {
        &self.uri[SCHEME.len()..self.trust_domain_end]
    }

    /// Kubernetes namespace.
    pub fn namespace(&self) -> &str {
        &self.uri[self.trust_domain_end + NAMESPACE.len()..self.namespace_end]
    }

    /// Kubernetes service account.
    pub fn service_account(&self) -> &str {
        &self.uri[self.namespace_end + ACCOUNT.len()..]
    }
}

/// What a trust domain, a namespace or an account may consist of: no separators, no control characters.
fn is_name(part: &str) -> bool {
    !part.is_empty()
        && part
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
}

impl fmt::Debug for WorkloadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.uri)
    }
}

impl fmt::Display for WorkloadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.uri)
    }
}

#[cfg(test)]
mod tests {
    use super::WorkloadId;

    fn check(uri: &str, expected: Option<(&str, &str, &str)>) {
        let parsed = WorkloadId::parse(uri).ok();
        let parts = parsed
            .as_ref()
            .map(|id| (id.trust_domain(), id.namespace(), id.service_account()));
        assert_eq!(parts, expected, "{uri}");
    }

    #[test]
    fn identities_have_exactly_three_parts() {
        check(
            "spiffe://cluster.local/ns/shop/sa/frontend",
            Some(("cluster.local", "shop", "frontend")),
        );
        check("spiffe://cluster.local/ns/shop/sa/", None);
        check("spiffe://cluster.local/ns//sa/x", None);
        check("spiffe:///ns/a/sa/b", None);
        check("spiffe://t/ns/a/sa/b/c", None);
        check("spiffe://t/ns/a/sa/b\0", None);
        check("https://t/ns/a/sa/b", None);
        check("", None);
    }
}
