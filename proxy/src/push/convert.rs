//! From wire types to what the engine enforces. Nothing here has an effect; every refusal names the field.

mod access;
mod edge;
mod policy;
mod service;
mod workload;

use std::fmt;
use std::time::Duration;

use meshgate_api::push as wire;
use meshgate_routing::route::{PathKind, PathMatch};

pub use edge::{EdgeCertificate, EdgeHost, EdgeRule, certificate, edge_host};
pub use service::service;
pub use workload::workload;

/// A resource in the types that the engine enforces.
#[derive(Debug)]
pub struct Enforceable<T> {
    /// What is enforced.
    pub resource: T,
    /// What of it cannot be. It is closed: left out, it would let through what was to be refused.
    pub closed: Option<Invalid>,
}

impl<T> Enforceable<T> {
    fn map<U>(self, convert: impl FnOnce(T) -> U) -> Enforceable<U> {
        Enforceable {
            resource: convert(self.resource),
            closed: self.closed,
        }
    }

    /// The same, seen from one level further out.
    fn within(self, outer: impl fmt::Display) -> Self {
        Self {
            closed: self.closed.map(|invalid| invalid.within(outer)),
            ..self
        }
    }
}

/// A resource that cannot be enforced: which field, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    /// From the resource inwards: `rules[2].path`.
    path: String,
    why: String,
}

impl Invalid {
    fn new(field: impl fmt::Display, why: impl fmt::Display) -> Self {
        Self {
            path: field.to_string(),
            why: why.to_string(),
        }
    }

    /// The same, seen from one level further out.
    fn within(self, outer: impl fmt::Display) -> Self {
        let separator = if self.path.is_empty() || self.path.starts_with('[') {
            ""
        } else {
            "."
        };
        Self {
            path: format!("{outer}{separator}{}", self.path),
            why: self.why,
        }
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.why)
    }
}

impl std::error::Error for Invalid {}

/// Converts each element; a failure says which.
fn each<T, U>(
    field: &str,
    elements: impl IntoIterator<Item = T>,
    convert: impl Fn(T) -> Result<U, Invalid>,
) -> Result<Vec<U>, Invalid> {
    elements
        .into_iter()
        .enumerate()
        .map(|(index, element)| {
            convert(element).map_err(|invalid| invalid.within(format_args!("{field}[{index}]")))
        })
        .collect()
}

fn parsed<T: std::str::FromStr>(field: &str, text: &str) -> Result<T, Invalid>
where
    T::Err: fmt::Display,
{
    text.parse()
        .map_err(|why| Invalid::new(field, format_args!("{text:?}: {why}")))
}

fn known<T: TryFrom<i32>>(field: &str, value: i32) -> Result<T, Invalid> {
    T::try_from(value).map_err(|_| Invalid::new(field, format_args!("unknown value {value}")))
}

/// TCP ports, from 1.
fn port(field: &str, value: u32) -> Result<u16, Invalid> {
    match u16::try_from(value) {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(Invalid::new(field, format_args!("{value} is no port"))),
    }
}

/// Missing is zero.
fn duration(field: &str, value: Option<prost_types::Duration>) -> Result<Duration, Invalid> {
    let value = value.unwrap_or_default();
    Duration::try_from(value).map_err(|_| Invalid::new(field, "negative or out of range"))
}

fn path_match(wire: wire::PathMatch) -> Result<PathMatch, Invalid> {
    let kind = match known::<wire::path_match::Kind>("kind", wire.kind)? {
        wire::path_match::Kind::Prefix => PathKind::Prefix,
        wire::path_match::Kind::Exact => PathKind::Exact,
        wire::path_match::Kind::Regex => PathKind::Regex,
    };
    PathMatch::new(kind, &wire.value).map_err(|why| Invalid::new("value", why))
}

#[cfg(test)]
mod tests;
