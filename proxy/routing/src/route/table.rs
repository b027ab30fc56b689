//! Hosts, then paths.

use std::sync::Arc;

use thiserror::Error;

use super::conditions::RouteRequest;
use super::host::{HOST_MAX_BYTES, HostName, wildcard_suffix};
use super::rules::{HostRules, Missed};
use crate::Configured;

/// All hosts of an edge. The rules of a host are shared, so a change of one host costs nothing for the others.
#[derive(Debug)]
pub struct RouteTable<T> {
    exact: Configured<Box<str>, Arc<HostRules<T>>>,
    wildcard: Configured<Box<str>, Arc<HostRules<T>>>,
    any: Option<Arc<HostRules<T>>>,
}

/// The rule of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Found<'a, T> {
    /// What the rule says.
    pub rule: &'a T,
    /// Whose it is.
    pub precision: Precision,
}

/// How precisely a host of rules names that of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Precision {
    /// By its name.
    Exact,
    /// By all but the first label.
    Wildcard,
    /// Not at all.
    Any,
}

/// Why a request belongs to no rule.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum NoRoute {
    /// Nobody serves this host.
    #[error("no rule for this host")]
    Host,
    /// The host is served, but not at this path.
    #[error("no rule for this path")]
    Path,
    /// The path is served, but not with this method, these header fields or this query.
    #[error("no rule for this method, these header fields or this query")]
    Conditions,
}

impl<T> Default for RouteTable<T> {
    fn default() -> Self {
        Self {
            exact: Configured::default(),
            wildcard: Configured::default(),
            any: None,
        }
    }
}

impl<T> RouteTable<T> {
    /// A table of hosts; of two entries for one host the last stays.
    pub fn new(hosts: impl IntoIterator<Item = (HostName, Arc<HostRules<T>>)>) -> Self {
        let mut table = Self::default();
        for (host, rules) in hosts {
            match host {
                HostName::Exact(name) => {
                    table.exact.insert(name, rules);
                }
                HostName::Wildcard(suffix) => {
                    table.wildcard.insert(suffix, rules);
                }
                HostName::Any => table.any = Some(rules),
            }
        }
        table
    }

    /// The rule of a request. `host` without port, in any case, empty when the request has none.
    ///
    /// A precise host beats a wildcard, which beats rules for any host; when the better host has no rule for the
    /// path, the next one is asked (a rule without host, such as a default backend, matches everything). A host that has the
    /// path has the last word: what its rules demand besides cannot be got around by another host's.
    pub fn find(&self, host: &str, request: &RouteRequest<'_>) -> Result<Found<'_, T>, NoRoute> {
        let mut buffer = [0; HOST_MAX_BYTES];
        let host = lower(host.trim_end_matches('.'), &mut buffer);
        // Each is asked only when the one before had nothing.
        let candidates = [Precision::Exact, Precision::Wildcard, Precision::Any];
        let mut missing = NoRoute::Host;
        for precision in candidates {
            let Some(rules) = self.rules(host, precision) else {
                continue;
            };
            match rules.find(request) {
                Ok(rule) => return Ok(Found { rule, precision }),
                Err(Missed::Conditions) => return Err(NoRoute::Conditions),
                Err(Missed::Path) => missing = NoRoute::Path,
            }
        }
        Err(missing)
    }

    /// The rules that name `host` so precisely; `None` for a host is one that nobody has.
    fn rules(&self, host: Option<&str>, precision: Precision) -> Option<&Arc<HostRules<T>>> {
        match precision {
            Precision::Exact => self.exact.get(host?),
            Precision::Wildcard => self.wildcard.get(wildcard_suffix(host?)?),
            Precision::Any => self.any.as_ref(),
        }
    }

    /// How many hosts have rules.
    pub fn hosts(&self) -> usize {
        self.exact.len() + self.wildcard.len() + usize::from(self.any.is_some())
    }
}

/// `host` in lower case without allocation; `None` when it is longer than any name in the table.
fn lower<'a>(host: &'a str, buffer: &'a mut [u8; HOST_MAX_BYTES]) -> Option<&'a str> {
    if host.len() > HOST_MAX_BYTES {
        return None;
    }
    if !host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Some(host);
    }
    let lowered = &mut buffer[..host.len()];
    lowered.copy_from_slice(host.as_bytes());
    lowered.make_ascii_lowercase();
    std::str::from_utf8(lowered).ok()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{NoRoute, Precision, RouteTable};
    use crate::route::text::{ask, wanted};
    use crate::route::{HostName, HostRules, RouteRequest};

    fn table() -> RouteTable<&'static str> {
        let rules = |rules: &[(&str, &'static str)]| {
            let rules = rules.iter().map(|(text, name)| (wanted(text), *name));
            Arc::new(HostRules::new(rules))
        };
        RouteTable::new([
            (
                HostName::parse("a.foo.com").unwrap(),
                rules(&[("Prefix /x", "exact"), ("Exact /p POST", "post")]),
            ),
            (
                HostName::parse("*.foo.com").unwrap(),
                rules(&[("Prefix /", "wild")]),
            ),
            (HostName::Any, rules(&[("Prefix /any", "any")])),
        ])
    }

    fn check(host: &str, request: &str, expected: Result<&str, NoRoute>) {
        let table = table();
        let found = ask(request, |asked| {
            let found = table.find(host, asked)?;
            let of = match found.precision {
                Precision::Exact => ["exact", "post"],
                Precision::Wildcard => ["wild"; 2],
                Precision::Any => ["any"; 2],
            };
            assert!(of.contains(found.rule), "{host} {request}: {found:?}");
            Ok(*found.rule)
        });
        assert_eq!(found, expected, "{host} {request}");
    }

    #[test]
    fn the_most_precise_host_that_has_the_path_wins() {
        check("a.foo.com", "/x", Ok("exact"));
        check("A.FOO.com", "/x", Ok("exact"));
        check("a.foo.com.", "/x", Ok("exact"));
        check("a.foo.com", "/y", Ok("wild"));
        check("b.foo.com", "/any", Ok("wild"));
        check("a.b.foo.com", "/any", Ok("any"));
        check("foo.com", "/other", Err(NoRoute::Path));
        check("", "/any/x", Ok("any"));
        check(&"x".repeat(300), "/any", Ok("any"));
        assert_eq!(
            RouteTable::<()>::default().find("a", &RouteRequest::for_path("/")),
            Err(NoRoute::Host)
        );
    }

    #[test]
    fn a_host_that_has_the_path_has_the_last_word() {
        check("a.foo.com", "POST /p", Ok("post"));
        check("a.foo.com", "GET /p", Err(NoRoute::Conditions));
        check("b.foo.com", "GET /p", Ok("wild"));
    }
}
