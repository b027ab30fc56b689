//! The path of a rule.

use thiserror::Error;

use super::pattern::{Pattern, PatternProblem};

/// How a path is compared.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum PathKind {
    /// The whole path, byte for byte.
    Exact,
    /// Element by element; a trailing slash of the rule does not count.
    Prefix,
    /// The whole path, by a regular expression.
    Regex,
}

/// A validated path of a rule.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct PathMatch(Compared);

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Compared {
    Exact(Box<str>),
    Prefix(Box<str>),
    Regex(Pattern),
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
    /// No regular expression.
    #[error(transparent)]
    Pattern(#[from] PatternProblem),
}

/// As long as a request's target may be.
const PATH_MAX_BYTES: usize = 8 * 1024;

impl PathMatch {
    /// Validates a path; an empty one means `/`, and no regular expression.
    pub fn new(kind: PathKind, value: &str) -> Result<Self, PathProblem> {
        Ok(Self(match kind {
            PathKind::Exact => Compared::Exact(valid(value)?.into()),
            PathKind::Prefix => Compared::Prefix(valid(value)?.into()),
            PathKind::Regex if value.is_empty() => {
                return Err(PathProblem::NeverMatches(String::new()));
            }
            PathKind::Regex => Compared::Regex(Pattern::new(value)?),
        }))
    }

    /// Exact, prefix or regular expression.
    pub fn kind(&self) -> PathKind {
        match self.0 {
            Compared::Exact(_) => PathKind::Exact,
            Compared::Prefix(_) => PathKind::Prefix,
            Compared::Regex(_) => PathKind::Regex,
        }
    }

    /// As configured.
    pub fn value(&self) -> &str {
        match &self.0 {
            Compared::Exact(value) | Compared::Prefix(value) => value,
            Compared::Regex(pattern) => pattern.as_str(),
        }
    }

    /// Whether a normalised path (no query) matches.
    pub fn matches(&self, path: &str) -> bool {
        match &self.0 {
            Compared::Exact(value) => **value == *path,
            Compared::Prefix(value) => {
                let prefix = value.trim_end_matches('/');
                path.strip_prefix(prefix)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
            Compared::Regex(pattern) => pattern.matches(path.as_bytes()),
        }
    }
}

/// A path that a normalised one can equal.
fn valid(value: &str) -> Result<&str, PathProblem> {
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
    Ok(value)
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

    #[test]
    fn an_expression_is_held_against_the_whole_path() {
        let check = |pattern: &str, path: &str, expected: bool| {
            let compiled = PathMatch::new(PathKind::Regex, pattern).unwrap();
            assert_eq!(compiled.matches(path), expected, "{pattern} against {path}");
        };
        check("/v[12]/[a-z]+", "/v2/items", true);
        check("/v[12]", "/v2/items", false);
        check(".*/items", "/v2/items", true);
        for bad in ["", "[a", "a{99999}"] {
            assert!(PathMatch::new(PathKind::Regex, bad).is_err(), "{bad}");
        }
    }
}
