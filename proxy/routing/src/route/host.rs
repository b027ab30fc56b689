//! Host names of rules.

use thiserror::Error;

/// The host of a rule: exact, one-label wildcard, or any.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostName {
    /// `a.test`, lower case.
    Exact(Box<str>),
    /// `*.a.test`, kept as `.a.test`: exactly one label before it.
    Wildcard(Box<str>),
    /// `*` or nothing: every host, and requests without one.
    Any,
}

/// Why a text is no host of a rule.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{text:?} is no host name: expected `a.test`, `*.a.test` or `*`")]
pub struct HostProblem {
    text: String,
}

/// Longest DNS name.
pub(super) const HOST_MAX_BYTES: usize = 253;

impl HostName {
    /// Parses the host of a rule; case does not matter.
    pub fn parse(text: &str) -> Result<Self, HostProblem> {
        let name = text.to_ascii_lowercase();
        if name.is_empty() || name == "*" {
            return Ok(Self::Any);
        }
        let (wildcard, labels) = match name.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, name.as_str()),
        };
        if !is_dns_name(labels) {
            return Err(HostProblem {
                text: text.chars().take(128).collect(),
            });
        }
        Ok(if wildcard {
            Self::Wildcard(name[1..].into())
        } else {
            Self::Exact(name.into())
        })
    }

    /// Whether a request's host (lower case, no port) is this one.
    pub fn matches(&self, host: &str) -> bool {
        match self {
            Self::Exact(name) => **name == *host,
            Self::Wildcard(suffix) => wildcard_suffix(host) == Some(suffix),
            Self::Any => true,
        }
    }
}

/// What a one-label wildcard must equal to match `host`: everything from its first dot on.
pub(super) fn wildcard_suffix(host: &str) -> Option<&str> {
    let dot = host.find('.')?;
    (dot > 0).then(|| &host[dot..])
}

fn is_dns_name(name: &str) -> bool {
    name.len() <= HOST_MAX_BYTES
        && name.split('.').all(|label| {
            !label.is_empty()
                && label.len() <= 63
                && label
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        })
}

#[cfg(test)]
mod tests {
    use super::HostName;

    fn check(rule: &str, host: &str, expected: bool) {
        let name = HostName::parse(rule).unwrap();
        assert_eq!(name.matches(host), expected, "{rule} against {host}");
    }

    #[test]
    fn wildcards_take_exactly_one_label() {
        check("*.foo.com", "bar.foo.com", true);
        check("*.foo.com", "baz.bar.foo.com", false);
        check("*.foo.com", "foo.com", false);
        check("*.foo.com", ".foo.com", false);
        check("Foo.com", "foo.com", true);
        check("*", "anything", true);
        check("", "", true);
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in [
            "a..b",
            "*.",
            "*.*.a",
            "a b",
            "a/b",
            "-\u{e4}.test",
            "f*.com",
        ] {
            assert!(HostName::parse(bad).is_err(), "{bad}");
        }
    }
}
