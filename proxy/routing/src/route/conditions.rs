//! What a rule may demand of a request besides its path: method, header fields, parameters of the query.

use std::borrow::Cow;
use std::fmt;

use thiserror::Error;

use super::path_match::PathMatch;
use super::pattern::Pattern;
use super::query;

/// What rules may look at.
#[derive(Clone, Copy)]
pub struct RouteRequest<'a> {
    /// As sent.
    pub method: &'a str,
    /// Normalised, without query.
    pub path: &'a str,
    /// As sent, without the `?`; empty when there is none.
    pub query: &'a str,
    /// The value of a header field (lower-case name), several lines of it joined by `, `. Only called for rules that have a
    /// say in that field.
    pub field: &'a dyn Fn(&str) -> Option<Cow<'a, [u8]>>,
}

impl<'a> RouteRequest<'a> {
    /// A GET for a normalised path, with no query and no fields.
    pub fn for_path(path: &'a str) -> Self {
        Self {
            method: "GET",
            path,
            query: "",
            field: &no_field,
        }
    }
}

impl fmt::Debug for RouteRequest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RouteRequest")
            .field("method", &self.method)
            .field("path", &self.path)
            .field("query", &self.query)
            .finish_non_exhaustive()
    }
}

fn no_field<'a>(_name: &str) -> Option<Cow<'a, [u8]>> {
    None
}

/// Which requests a rule takes: those of its path that fulfil its conditions.
#[derive(Clone, Debug)]
pub struct RequestMatch {
    /// Which paths.
    pub path: PathMatch,
    /// What else.
    pub conditions: Conditions,
}

impl RequestMatch {
    /// Whether it takes the request.
    pub fn matches(&self, request: &RouteRequest<'_>) -> bool {
        self.path.matches(request.path) && self.conditions.are_met(request)
    }
}

impl From<PathMatch> for RequestMatch {
    fn from(path: PathMatch) -> Self {
        Self {
            path,
            conditions: Conditions::default(),
        }
    }
}

/// All must be met; the default has none.
#[derive(Clone, Debug, Default)]
pub struct Conditions {
    method: Option<Box<str>>,
    headers: Box<[HeaderMatch]>,
    query: Box<[QueryMatch]>,
}

/// Why conditions cannot be a rule's.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ConditionProblem {
    /// No token (RFC 9110 §9.1).
    #[error("{0:?} is no method")]
    Method(String),
    /// No token (RFC 9110 §5.1).
    #[error("{0:?} is no name of a header field")]
    HeaderName(String),
    /// Without a name.
    #[error("a parameter of the query must have a name")]
    NoQueryName,
    /// More than a match of Gateway API can have.
    #[error("{0} of them, more than {CONDITIONS_MAX}")]
    TooMany(usize),
}

/// As many header fields, and as many parameters, as Gateway API allows in one match.
const CONDITIONS_MAX: usize = 16;

impl Conditions {
    /// Demands a method, in upper case as nearly all are.
    pub fn with_method(self, method: &str) -> Result<Self, ConditionProblem> {
        if !is_token(method) {
            return Err(ConditionProblem::Method(shown(method)));
        }
        Ok(Self {
            method: Some(method.into()),
            ..self
        })
    }

    /// Demands all of these header fields; of two for one name only the first counts, as in Gateway API.
    pub fn with_headers(self, headers: Vec<HeaderMatch>) -> Result<Self, ConditionProblem> {
        Ok(Self {
            headers: first_of_each(headers, |header| &header.name)?,
            ..self
        })
    }

    /// Demands all of these parameters; of two for one name only the first counts, as in Gateway API.
    pub fn with_query(self, query: Vec<QueryMatch>) -> Result<Self, ConditionProblem> {
        Ok(Self {
            query: first_of_each(query, |parameter| &parameter.name)?,
            ..self
        })
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.method.is_none() && self.headers.is_empty() && self.query.is_empty()
    }

    /// Whether the request meets all of them.
    pub fn are_met(&self, request: &RouteRequest<'_>) -> bool {
        self.method.as_deref().is_none_or(|m| m == request.method)
            && self.headers.iter().all(|header| header.is_met(request))
            && self.query.iter().all(|parameter| parameter.is_met(request))
    }

    /// Of two rules for one path the greater is asked first: a method, then more header fields, then more parameters.
    pub(super) fn precedence(&self) -> (bool, usize, usize) {
        (self.method.is_some(), self.headers.len(), self.query.len())
    }
}

/// A header field that a request must have.
#[derive(Clone, Debug)]
pub struct HeaderMatch {
    /// Lower case.
    name: Box<str>,
    value: ValueMatch,
}

impl HeaderMatch {
    /// Case of the name does not matter.
    pub fn new(name: &str, value: ValueMatch) -> Result<Self, ConditionProblem> {
        if !is_token(name) {
            return Err(ConditionProblem::HeaderName(shown(name)));
        }
        let name = name.to_ascii_lowercase().into();
        Ok(Self { name, value })
    }

    fn is_met(&self, request: &RouteRequest<'_>) -> bool {
        (request.field)(&self.name).is_some_and(|value| self.value.is(&value))
    }
}

/// A parameter that the query must have.
#[derive(Clone, Debug)]
pub struct QueryMatch {
    name: Box<str>,
    value: ValueMatch,
}

impl QueryMatch {
    /// The name as it is when decoded.
    pub fn new(name: &str, value: ValueMatch) -> Result<Self, ConditionProblem> {
        if name.is_empty() {
            return Err(ConditionProblem::NoQueryName);
        }
        let name = name.into();
        Ok(Self { name, value })
    }

    fn is_met(&self, request: &RouteRequest<'_>) -> bool {
        query::first_is(request.query, &self.name, |value| match &self.value {
            ValueMatch::Exact(wanted) => value.eq(wanted.bytes()),
            ValueMatch::Regex(pattern) => pattern.matches(&value.collect::<Vec<u8>>()),
        })
    }
}

/// How a value is compared.
#[derive(Clone, Debug)]
pub enum ValueMatch {
    /// Byte for byte.
    Exact(Box<str>),
    /// As a whole.
    Regex(Pattern),
}

impl ValueMatch {
    fn is(&self, value: &[u8]) -> bool {
        match self {
            Self::Exact(wanted) => wanted.as_bytes() == value,
            Self::Regex(pattern) => pattern.matches(value),
        }
    }
}

fn first_of_each<T>(
    mut all: Vec<T>,
    name: impl Fn(&T) -> &str,
) -> Result<Box<[T]>, ConditionProblem> {
    if all.len() > CONDITIONS_MAX {
        return Err(ConditionProblem::TooMany(all.len()));
    }
    let mut seen = std::collections::BTreeSet::new();
    all.retain(|one| seen.insert(name(one).to_owned()));
    Ok(all.into())
}

/// RFC 9110 §5.6.2.
fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

fn shown(text: &str) -> String {
    text.chars().take(128).collect()
}

#[cfg(test)]
mod tests {
    use super::{ConditionProblem, Conditions, HeaderMatch, QueryMatch, ValueMatch};
    use crate::route::text::{ask, conditions};

    fn check(wanted: &str, expected: bool) {
        let request = "POST /?page=1&page=2&q=a%20b x-plan=free accept=a,b";
        let met = ask(request, |request| conditions(wanted).are_met(request));
        assert_eq!(met, expected, "{wanted}");
    }

    #[test]
    fn all_of_them_must_be_met() {
        check("", true);
        check("POST", true);
        check("GET", false);
        check("post", false);
        check("X-Plan=free", true);
        check("x-plan=Free", false);
        check("x-plan=~fr.*", true);
        check("x-plan=~fr", false);
        check("accept=~a,.*b", true);
        check("accept=a", false);
        check("x-none=", false);
        check("?page=1", true);
        check("?page=2", false);
        check("?q=~a.b", true);
        check("?Q=~a.b", false);
        check("POST x-plan=free ?page=1 ?q=~.*", true);
        check("POST x-plan=free ?page=1 ?q=~", false);
    }

    #[test]
    fn of_two_for_one_name_the_first_counts() {
        check("x-plan=free X-Plan=gold", true);
        check("x-plan=gold X-Plan=free", false);
        check("?page=1 ?page=2", true);
        let wanted = conditions("x-plan=free X-Plan=gold ?page=1 ?Page=2");
        assert_eq!(wanted.precedence(), (false, 1, 2));
    }

    #[test]
    fn what_can_never_be_met_is_refused() {
        let value = || ValueMatch::Exact("x".into());
        for bad in ["", "a b", "a:", "\u{e4}"] {
            assert!(HeaderMatch::new(bad, value()).is_err(), "{bad}");
            assert!(Conditions::default().with_method(bad).is_err(), "{bad}");
        }
        assert!(QueryMatch::new("", value()).is_err());
        let many = (0..17).map(|n| HeaderMatch::new(&format!("x-{n}"), value()).unwrap());
        let refused = Conditions::default().with_headers(many.collect());
        assert_eq!(refused.unwrap_err(), ConditionProblem::TooMany(17));
    }
}
