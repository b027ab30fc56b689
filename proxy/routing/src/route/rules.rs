//! The rules of one host: a tree of path elements, and at its ends what is asked in which order.
//!
//! A lookup walks the request's elements once, so its cost grows with the depth of the rules and not with their
//! number, and an attacker's long path ends at the first unknown element. Where the walk ends, a chain begins: the rules
//! that take such a path, best first. Chains share their tails, as a longer prefix goes on with the shorter ones; a rule
//! with nothing but a path is the first of its chain that is looked at, and ends the lookup.

use std::cmp::Reverse;

use super::conditions::{Conditions, RequestMatch, RouteRequest};
use super::path_match::PathKind;
use crate::Configured;

/// What one host (or "any host") serves: requests to values.
#[derive(Debug)]
pub struct HostRules<T> {
    rules: Vec<Rule<T>>,
    nodes: Vec<Node>,
    /// With a regular expression for a path, best first: asked when the chain has nothing.
    patterns: Vec<(RequestMatch, T)>,
}

/// A rule of a path, in its chain.
#[derive(Debug)]
struct Rule<T> {
    /// `None` takes whatever has the path.
    conditions: Option<Box<Conditions>>,
    value: T,
    /// The next best.
    next: Option<u32>,
}

/// Where a walk can end. Each is the head of a chain, an index into the rules.
#[derive(Debug, Default)]
struct Node {
    /// Of the prefixes that end here or above.
    prefix: Option<u32>,
    /// Before them, of the exact paths that end here, without and with a trailing slash.
    exact: Option<u32>,
    exact_slash: Option<u32>,
    children: Children,
}

/// Why no rule of a host takes a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Missed {
    /// None has the path.
    Path,
    /// Some have; each demands another method, header field or parameter of the query.
    Conditions,
}

/// Few children are found faster by looking at each than by hashing.
const FEW_CHILDREN_MAX: usize = 8;

#[derive(Debug)]
enum Children {
    Few(Vec<(Box<str>, u32)>),
    Many(Configured<Box<str>, u32>),
}

impl Default for Children {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

impl Children {
    fn find(&self, element: &str) -> Option<u32> {
        match self {
            Self::Few(list) => list
                .iter()
                .find(|(name, _)| **name == *element)
                .map(|(_, node)| *node),
            Self::Many(map) => map.get(element).copied(),
        }
    }

    fn insert(&mut self, element: &str, node: u32) {
        match self {
            Self::Few(list) if list.len() < FEW_CHILDREN_MAX => list.push((element.into(), node)),
            Self::Few(list) => {
                let mut map: Configured<_, _> = list.drain(..).collect();
                map.insert(element.into(), node);
                *self = Self::Many(map);
            }
            Self::Many(map) => {
                map.insert(element.into(), node);
            }
        }
    }
}

impl<T> HostRules<T> {
    /// Compiles rules. They are asked in Gateway API's order: exact paths, then prefixes from the longest on, then regular
    /// expressions; of those with the same path (and of all expressions) one for a method first, then the one with
    /// more header fields, then with more parameters of the query, then the first given.
    pub fn new<M: Into<RequestMatch>>(rules: impl IntoIterator<Item = (M, T)>) -> Self {
        let (mut patterns, mut paths): (Vec<_>, Vec<_>) = rules
            .into_iter()
            .map(|(wanted, value)| (wanted.into(), value))
            .partition(|(wanted, _)| wanted.path.kind() == PathKind::Regex);
        patterns.sort_by_key(|(wanted, _)| Reverse(wanted.conditions.precedence()));
        // From the last asked to the first, so that each finds the chain that it goes before.
        paths.reverse();
        paths.sort_by_cached_key(|(wanted, _)| {
            let is_exact = wanted.path.kind() == PathKind::Exact;
            let depth = elements(wanted.path.value()).count();
            (depth, is_exact, wanted.conditions.precedence())
        });
        let mut compiled = Self {
            rules: Vec::with_capacity(paths.len()),
            nodes: vec![Node::default()],
            patterns,
        };
        for (wanted, value) in paths {
            compiled.insert(wanted, value);
        }
        compiled
    }

    /// Puts a rule before all that are there already.
    fn insert(&mut self, RequestMatch { path, conditions }: RequestMatch, value: T) {
        let at = self.node(path.value());
        let node = &mut self.nodes[at];
        let head = match path.kind() {
            PathKind::Exact if path.value().ends_with('/') => &mut node.exact_slash,
            PathKind::Exact => &mut node.exact,
            // Expressions have a list of their own.
            PathKind::Prefix | PathKind::Regex => &mut node.prefix,
        };
        let next = head.replace(self.rules.len() as u32);
        if path.kind() == PathKind::Prefix {
            // No exact path of this node is there yet.
            (node.exact, node.exact_slash) = (node.prefix, node.prefix);
        }
        self.rules.push(Rule {
            conditions: (!conditions.is_empty()).then(|| Box::new(conditions)),
            value,
            next,
        });
    }

    /// The node of a path. A new one begins with the chain of the one above, to which nothing will be added any more.
    fn node(&mut self, path: &str) -> usize {
        let mut at = 0;
        for element in elements(path) {
            at = match self.nodes[at].children.find(element) {
                Some(child) => child as usize,
                None => {
                    let child = self.nodes.len();
                    let above = self.nodes[at].prefix;
                    self.nodes.push(Node {
                        prefix: above,
                        exact: above,
                        exact_slash: above,
                        children: Children::default(),
                    });
                    self.nodes[at].children.insert(element, child as u32);
                    child
                }
            };
        }
        at
    }

    /// The best rule that takes a request.
    pub fn find(&self, request: &RouteRequest<'_>) -> Result<&T, Missed> {
        let first = self.first(request.path);
        let mut next = first;
        while let Some(index) = next {
            let rule = &self.rules[index as usize];
            let conditions = rule.conditions.as_deref();
            if conditions.is_none_or(|conditions| conditions.are_met(request)) {
                return Ok(&rule.value);
            }
            next = rule.next;
        }
        self.find_pattern(request, first.is_some())
    }

    /// The head of the chain for a path.
    fn first(&self, path: &str) -> Option<u32> {
        let mut node = &self.nodes[0];
        for element in elements(path) {
            let Some(child) = node.children.find(element) else {
                return node.prefix;
            };
            node = &self.nodes[child as usize];
        }
        if path.ends_with('/') {
            node.exact_slash
        } else {
            node.exact
        }
    }

    fn find_pattern(&self, request: &RouteRequest<'_>, mut has_path: bool) -> Result<&T, Missed> {
        for (wanted, value) in &self.patterns {
            let matches = wanted.path.matches(request.path);
            if matches && wanted.conditions.are_met(request) {
                return Ok(value);
            }
            has_path |= matches;
        }
        Err(if has_path {
            Missed::Conditions
        } else {
            Missed::Path
        })
    }
}

/// The elements of a path: what stands between slashes, without the empty one after a trailing slash.
fn elements(path: &str) -> impl Iterator<Item = &str> {
    let inner = path.strip_prefix('/').unwrap_or(path);
    let inner = inner.strip_suffix('/').unwrap_or(inner);
    inner.split('/').filter(|element| !element.is_empty())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{HostRules, Missed};
    use crate::route::text::{ask, wanted};
    use crate::route::{PathKind, RouteRequest};

    fn compiled<'a>(rules: &[&'a str]) -> HostRules<&'a str> {
        HostRules::new(rules.iter().map(|text| (wanted(text), *text)))
    }

    /// `rules` as `text` reads them; the answer is the rule's text.
    fn check(rules: &[&str], request: &str, expected: Option<&str>) {
        let compiled = compiled(rules);
        let found = ask(request, |request| compiled.find(request).ok().copied());
        assert_eq!(found, expected, "{rules:?} for {request}");
    }

    #[test]
    fn the_table_of_the_ingress_specification() {
        check(&["Prefix /"], "/any/thing", Some("Prefix /"));
        check(&["Exact /foo"], "/foo", Some("Exact /foo"));
        check(&["Exact /foo"], "/bar", None);
        check(&["Exact /foo"], "/foo/", None);
        check(&["Exact /foo/"], "/foo", None);
        check(&["Exact /foo/"], "/foo/", Some("Exact /foo/"));
        for rule in ["Prefix /foo", "Prefix /foo/"] {
            check(&[rule], "/foo", Some(rule));
            check(&[rule], "/foo/", Some(rule));
        }
        check(&["Prefix /aaa/bb"], "/aaa/bbb", None);
        check(&["Prefix /aaa/bbb"], "/aaa/bbb", Some("Prefix /aaa/bbb"));
        check(&["Prefix /aaa/bbb/"], "/aaa/bbb", Some("Prefix /aaa/bbb/"));
        check(&["Prefix /aaa/bbb"], "/aaa/bbb/", Some("Prefix /aaa/bbb"));
        check(
            &["Prefix /aaa/bbb"],
            "/aaa/bbb/ccc",
            Some("Prefix /aaa/bbb"),
        );
        check(&["Prefix /aaa/bbb"], "/aaa/bbbxyz", None);
        check(
            &["Prefix /", "Prefix /aaa"],
            "/aaa/ccc",
            Some("Prefix /aaa"),
        );
        let three = ["Prefix /", "Prefix /aaa", "Prefix /aaa/bbb"];
        check(&three, "/aaa/bbb", Some("Prefix /aaa/bbb"));
        check(&three, "/ccc", Some("Prefix /"));
        check(&["Prefix /aaa"], "/ccc", None);
        check(&["Prefix /foo", "Exact /foo"], "/foo", Some("Exact /foo"));
        check(
            &["Exact /foo", "Prefix /foo"],
            "/foo/x",
            Some("Prefix /foo"),
        );
        check(&["Prefix /Foo"], "/foo", None);
    }

    #[test]
    fn many_children_are_found_too() {
        let texts: Vec<String> = (0..100).map(|n| format!("Prefix /p{n}")).collect();
        let rules: Vec<&str> = texts.iter().map(String::as_str).collect();
        check(&rules, "/p73/x", Some("Prefix /p73"));
        check(&rules, "/p100", None);
    }

    #[test]
    fn of_one_path_the_rule_that_demands_more_is_asked_first() {
        let rules = [
            "Prefix /a",
            "Prefix /a ?q=1",
            "Prefix /a x=1",
            "Prefix /a x=1 y=2",
            "Prefix /a x=1 ?q=1",
            "Prefix /a GET",
            "Prefix /a z=~[12]",
            "Prefix /a z=~[23]",
        ];
        check(&rules, "GET /a?q=1 x=1 y=2", Some("Prefix /a GET"));
        check(&rules, "POST /a?q=1 x=1 y=2", Some("Prefix /a x=1 y=2"));
        check(&rules, "POST /a?q=1 x=1 y=3", Some("Prefix /a x=1 ?q=1"));
        check(&rules, "POST /a?q=2 x=1 y=3", Some("Prefix /a x=1"));
        check(&rules, "POST /a?q=1 x=2", Some("Prefix /a ?q=1"));
        check(&rules, "POST /a z=2", Some("Prefix /a z=~[12]"));
        check(&rules, "POST /a z=3", Some("Prefix /a z=~[23]"));
        check(&rules, "POST /a", Some("Prefix /a"));
    }

    #[test]
    fn a_rule_that_refuses_gives_way_to_a_shorter_path() {
        let rules = [
            "Prefix / x=1",
            "Prefix /a/b POST",
            "Exact /a/b/c DELETE",
            "Prefix /a PUT",
            "Exact /a/b/ PATCH",
        ];
        check(&rules, "DELETE /a/b/c", Some("Exact /a/b/c DELETE"));
        check(&rules, "POST /a/b/c", Some("Prefix /a/b POST"));
        check(&rules, "PUT /a/b/c", Some("Prefix /a PUT"));
        check(&rules, "GET /a/b/c x=1", Some("Prefix / x=1"));
        check(&rules, "GET /a/b/c", None);
        check(&rules, "PATCH /a/b/", Some("Exact /a/b/ PATCH"));
        check(&rules, "PATCH /a/b x=1", Some("Prefix / x=1"));
        check(&rules, "PUT /a/b/c/d", Some("Prefix /a PUT"));
    }

    #[test]
    fn expressions_come_last() {
        let rules = ["Regex /v[0-9]+/.*", "Prefix /v1 POST", "Regex /v2/.* x=1"];
        check(&rules, "POST /v1/a", Some("Prefix /v1 POST"));
        check(&rules, "GET /v1/a", Some("Regex /v[0-9]+/.*"));
        check(&rules, "GET /v2/a x=1", Some("Regex /v2/.* x=1"));
        check(&rules, "GET /v2/a", Some("Regex /v[0-9]+/.*"));
        check(&rules, "GET /w", None);
        check(&["Regex .*", "Prefix /"], "/a", Some("Prefix /"));
    }

    #[test]
    fn a_miss_says_whether_the_path_is_served() {
        let rules = compiled(&["Exact /a POST", "Prefix /b", "Regex /c+ PUT"]);
        let missed = |request: &str| ask(request, |request| rules.find(request).err());
        assert_eq!(missed("GET /a"), Some(Missed::Conditions));
        assert_eq!(missed("GET /a/"), Some(Missed::Path));
        assert_eq!(missed("GET /cc"), Some(Missed::Conditions));
        assert_eq!(missed("GET /d"), Some(Missed::Path));
        assert_eq!(missed("GET /b"), None);
    }

    /// The first of the best, by looking at each rule.
    fn one_by_one<'a>(rules: &[&'a str], request: &RouteRequest<'_>) -> Option<&'a str> {
        let rank = |text: &str| {
            let rule = wanted(text);
            let kind = match rule.path.kind() {
                PathKind::Exact => 2,
                PathKind::Prefix => 1,
                PathKind::Regex => 0,
            };
            let length = rule.path.value().trim_end_matches('/').len() * kind;
            (kind, length, rule.conditions.precedence())
        };
        let takes = |text: &&&str| wanted(text).matches(request);
        // Of equal ones the first.
        let best = rules
            .iter()
            .rev()
            .filter(takes)
            .max_by_key(|text| rank(text));
        best.copied()
    }

    proptest! {
        #[test]
        fn the_tree_finds_what_looking_at_each_rule_finds(
            rules in prop::collection::vec(
                "(Exact|Prefix)( /)|(Exact|Prefix)( (/[ab]){1,3}/?)|Regex /[ab.]\\*", 0..12,
            ),
            conditions in prop::collection::vec(
                "( GET| POST)?( x=[12])?( y=~\\[12\\])?( \\?q=[12])?( \\?r=~1)?", 12,
            ),
            path in "(/[ab]){0,4}/?",
            rest in "(\\?q=[12](&r=[12])?)?( x=[12])?( y=[12])?",
        ) {
            let rules: Vec<String> =
                rules.iter().zip(&conditions).map(|(path, rest)| format!("{path}{rest}")).collect();
            let rules: Vec<&str> = rules.iter().map(String::as_str).collect();
            let slash = if path.is_empty() { "/" } else { "" };
            let compiled = compiled(&rules);
            ask(&format!("{slash}{path}{rest}"), |request| {
                let found = compiled.find(request).ok().copied();
                prop_assert_eq!(found, one_by_one(&rules, request), "{:?}", request);
                Ok(())
            })?;
        }
    }
}
