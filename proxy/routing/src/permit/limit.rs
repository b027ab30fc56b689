//! A rate limit as configured: which requests count, into which bucket, how many.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::window::Rate;
use crate::route::PathMatch;

/// One limit of a RateLimitPolicy.
#[derive(Clone, Debug, PartialEq)]
pub struct Limit {
    /// Unique and stable: "namespace/policy/limit".
    pub id: Arc<str>,
    /// Shown to clients.
    pub name: Arc<str>,
    /// Only requests that match count.
    pub matches: LimitMatch,
    /// Empty: one bucket for all.
    pub key: Vec<KeyPart>,
    /// How many.
    pub rate: Rate,
    /// Counted here, or shared with the other replicas.
    pub scope: Scope,
    /// Count and report, never refuse.
    pub shadow: bool,
}

/// Which requests count: each given list must have a match.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LimitMatch {
    /// Normalised paths; empty means all.
    pub paths: Vec<PathMatch>,
    /// Methods; empty means all.
    pub methods: Vec<String>,
    /// Lower-case name and value; all must be equal.
    pub headers: Vec<(String, String)>,
}

/// What tells buckets apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyPart {
    /// The client's network.
    ClientAddress {
        /// Bits of an IPv4 address, at most 32.
        prefix_v4: u8,
        /// Bits of an IPv6 address, at most 128.
        prefix_v6: u8,
    },
    /// The value of a header (lower-case name).
    Header(String),
    /// The peer's verified identity.
    Identity,
    /// The normalised path.
    Path,
}

/// Where a limit is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Each proxy on its own.
    Local,
    /// Exact over all replicas, by leases.
    Global {
        /// How many replicas share it, for [`OnFailure::LocalShare`]; at least 1.
        replicas: u32,
        /// When the owner cannot be reached.
        on_failure: OnFailure,
    },
}

/// What a replica does when it hears nothing from the owner of a global limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailure {
    /// Its part: the limit divided by the replicas.
    LocalShare,
    /// Everything.
    Open,
    /// Nothing.
    Closed,
}

/// What a limit may look at.
pub struct LimitRequest<'a> {
    /// As sent.
    pub method: &'a str,
    /// Normalised, without query.
    pub path: &'a str,
    /// The client's address.
    pub client: IpAddr,
    /// The peer's verified identity.
    pub identity: Option<&'a str>,
    /// The first value of a header (lower-case name).
    pub header: &'a (dyn Fn(&str) -> Option<&'a [u8]> + Sync),
}

impl std::fmt::Debug for LimitRequest<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LimitRequest")
            .field("method", &self.method)
            .field("path", &self.path)
            .field("client", &self.client)
            .finish_non_exhaustive()
    }
}

/// A limit let a request through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permit {
    /// How many more would be let through now.
    pub remaining: u64,
    /// Until the bucket is as full as it gets.
    pub reset: Duration,
}

/// A limit refused a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The earliest moment when another can be let through.
    pub retry_after: Duration,
}

/// Longest value of a key part; what follows is cut off. Clients that differ only beyond share a bucket, so cutting
/// makes a limit stricter, never looser.
const KEY_PART_MAX_BYTES: usize = 256;
/// Between the parts of a key; no header, path or identity can contain it.
const KEY_SEPARATOR: char = '\u{1f}';

impl Limit {
    /// Whether this request counts.
    pub fn counts(&self, request: &LimitRequest<'_>) -> bool {
        let any = |empty: bool, matches: bool| empty || matches;
        let LimitMatch {
            paths,
            methods,
            headers,
        } = &self.matches;
        any(
            methods.is_empty(),
            methods.iter().any(|method| method == request.method),
        ) && any(
            paths.is_empty(),
            paths.iter().any(|path| path.matches(request.path)),
        ) && headers
            .iter()
            .all(|(name, value)| (request.header)(name) == Some(value.as_bytes()))
    }

    /// Writes the request's bucket into `key`, which is emptied first.
    pub fn write_key(&self, request: &LimitRequest<'_>, key: &mut String) {
        key.clear();
        for (index, part) in self.key.iter().enumerate() {
            if index > 0 {
                key.push(KEY_SEPARATOR);
            }
            match part {
                KeyPart::ClientAddress {
                    prefix_v4,
                    prefix_v6,
                } => write_network(request.client, *prefix_v4, *prefix_v6, key),
                KeyPart::Header(name) => {
                    let value = (request.header)(name).unwrap_or_default();
                    let value = &value[..value.len().min(KEY_PART_MAX_BYTES)];
                    key.push_str(&String::from_utf8_lossy(value));
                }
                KeyPart::Identity => key.push_str(request.identity.unwrap_or_default()),
                KeyPart::Path => {
                    let end = request.path.len().min(KEY_PART_MAX_BYTES);
                    key.push_str(request.path.get(..end).unwrap_or(request.path));
                }
            }
        }
    }
}

fn write_network(client: IpAddr, prefix_v4: u8, prefix_v6: u8, key: &mut String) {
    let client = client.to_canonical();
    let bits = match client {
        IpAddr::V4(_) => prefix_v4.min(32),
        IpAddr::V6(_) => prefix_v6.min(128),
    };
    let network = ipnet::IpNet::new(client, bits).map_or(client, |net| net.network());
    // Writing into a String cannot fail.
    let _ = write!(key, "{network}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(key: Vec<KeyPart>, matches: LimitMatch) -> Limit {
        Limit {
            id: "a/b/c".into(),
            name: "c".into(),
            matches,
            key,
            rate: Rate::new(1, Duration::from_secs(1), 0),
            scope: Scope::Local,
            shadow: false,
        }
    }

    fn check(limit: &Limit, client: &str, plan: &'static str, counts: bool, key: &str) {
        let header = |name: &str| (name == "x-plan").then_some(plan.as_bytes());
        let request = LimitRequest {
            method: "GET",
            path: "/api/x",
            client: client.parse().unwrap(),
            identity: None,
            header: &header,
        };
        let mut written = String::from("old");
        limit.write_key(&request, &mut written);
        assert_eq!((limit.counts(&request), written.as_str()), (counts, key));
    }

    #[test]
    fn keys_and_matches() {
        let address = KeyPart::ClientAddress {
            prefix_v4: 24,
            prefix_v6: 64,
        };
        let all = limit(vec![], LimitMatch::default());
        check(&all, "10.1.2.3", "free", true, "");
        let both = limit(
            vec![address, KeyPart::Header("x-plan".into())],
            LimitMatch {
                headers: vec![("x-plan".into(), "free".into())],
                methods: vec!["GET".into()],
                ..LimitMatch::default()
            },
        );
        check(&both, "10.1.2.3", "free", true, "10.1.2.0\u{1f}free");
        check(&both, "::ffff:10.1.2.3", "free", true, "10.1.2.0\u{1f}free");
        check(
            &both,
            "2001:db8::1:2:3:4",
            "paid",
            false,
            "2001:db8::\u{1f}paid",
        );
    }
}
