//! Rules and requests as tests write them.

use std::borrow::Cow;

use super::{
    Conditions, HeaderMatch, PathKind, PathMatch, Pattern, QueryMatch, RequestMatch, RouteRequest,
    ValueMatch,
};

/// `Exact /a`, `Prefix /a` or `Regex /a`, and conditions.
pub(super) fn wanted(text: &str) -> RequestMatch {
    let mut words = text.splitn(3, ' ');
    let kind = match words.next() {
        Some("Exact") => PathKind::Exact,
        Some("Prefix") => PathKind::Prefix,
        _ => PathKind::Regex,
    };
    RequestMatch {
        path: PathMatch::new(kind, words.next().unwrap()).unwrap(),
        conditions: conditions(words.next().unwrap_or_default()),
    }
}

/// `GET`, `x-plan=free`, `?page=1`; a value after `~` is a regular expression.
pub(super) fn conditions(text: &str) -> Conditions {
    let (mut method, mut headers, mut query) = (Conditions::default(), Vec::new(), Vec::new());
    for word in text.split_whitespace() {
        match (word.strip_prefix('?'), word.split_once('=')) {
            (Some(word), _) => {
                let (name, wanted) = word.split_once('=').unwrap();
                query.push(QueryMatch::new(name, value(wanted)).unwrap());
            }
            (None, Some((name, wanted))) => {
                headers.push(HeaderMatch::new(name, value(wanted)).unwrap());
            }
            (None, None) => method = method.with_method(word).unwrap(),
        }
    }
    let conditions = method.with_headers(headers).unwrap();
    conditions.with_query(query).unwrap()
}

fn value(text: &str) -> ValueMatch {
    match text.strip_prefix('~') {
        Some(pattern) => ValueMatch::Regex(Pattern::new(pattern).unwrap()),
        None => ValueMatch::Exact(text.into()),
    }
}

/// `POST /path?query x-field=value`; without a method it is a GET.
pub(super) fn ask<T>(text: &str, find: impl FnOnce(&RouteRequest<'_>) -> T) -> T {
    let mut words = text.split(' ');
    let first = words.next().unwrap();
    let (method, target) = match first.starts_with('/') {
        true => ("GET", first),
        false => (first, words.next().unwrap()),
    };
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let fields: Vec<(&str, &str)> = words.map(|word| word.split_once('=').unwrap()).collect();
    let field = |name: &str| {
        let found = fields.iter().find(|(other, _)| *other == name);
        found.map(|(_, value)| Cow::Borrowed(value.as_bytes()))
    };
    find(&RouteRequest {
        method,
        path,
        query,
        field: &field,
    })
}
