//! The path of a rule.

use thiserror::Error;

/// How a path is compared.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum PathKind {
    /// The whole path, byte for byte.
    Exact,
    /// Element by element; a trailing slash of the rule does not count.
    Prefix,
}

/// A validated path of a rule.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct PathMatch {
    kind: PathKind,
    value: Box<str>,
}

/// Why a text is no path of a rule.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PathProblem {
    /// Paths are absolute.
    #[error("path {0:?} does not start with '/'")]
    Relative(String),
    /// Longer than a request's can be.
    #[error("path is {0} bytes long, more than {PATH_MAX_BYTES}")]
    TooLong(usize),
    /// Could never equal a normalised path.
    #[error(
        "path {0:?} contains an empty element, a dot element, a query or characters that no normalised path has"
    )]
    NeverMatches(String),
}

/// As long as a request's target may be.
const PATH_MAX_BYTES: usize = 8 * 1024;

impl PathMatch {
    /// Validates a path; an empty one means `/`.
    pub fn new(kind: PathKind, value: &str) -> Result<Self, PathProblem> {
        let value = if value.is_empty() { "/" } else { value };
        let shown = || value.chars().take(128).collect();
        if !value.starts_with('/') {
            return Err(PathProblem::Relative(shown()));
        }
        if value.len() > PATH_MAX_BYTES {
            return Err(PathProblem::TooLong(value.len()));
        }
        if value.contains(['?', '#']) || super::normalise(value).as_deref() != Ok(value) {
            return Err(PathProblem::NeverMatches(shown()));
        }
        Ok(Self {
            kind,
            value: value.into(),
        })
    }

    /// Exact or prefix.
    pub fn kind(&self) -> PathKind {
        self.kind
    }

    /// As configured.
    pub fn value(&self) -> &str {
        &self.value
    }

    /// Whether a normalised path (no query) matches.
    pub fn matches(&self, path: &str) -> bool {
        match self.kind {
            PathKind::Exact => *self.value == *path,
            PathKind::Prefix => {
                let prefix = self.value.trim_end_matches('/');
                path.strip_prefix(prefix)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{PathKind, PathMatch};

    #[test]
    fn a_rule_that_can_never_match_is_refused() {
        for bad in ["foo", "/a//b", "/a/../b", "/a?b", "/%2e", "/a\0"] {
            assert!(PathMatch::new(PathKind::Prefix, bad).is_err(), "{bad}");
        }
        assert_eq!(PathMatch::new(PathKind::Prefix, "").unwrap().value(), "/");
    }
}
