//! The paths of one host, as a tree of path elements.
//!
//! A lookup walks the request's elements once, so its cost grows with the depth of the rules and not with their
//! number, and an attacker's long path ends at the first unknown element.

use super::path_match::{PathKind, PathMatch};
use crate::Configured;

/// What one host (or "any host") serves: paths to values.
#[derive(Debug)]
pub struct HostRules<T> {
    values: Vec<T>,
    nodes: Vec<Node>,
}

#[derive(Debug, Default)]
struct Node {
    /// Index into `values` of the prefix rule that ends here.
    prefix: Option<u32>,
    /// Of the exact rule that ends here, without and with a trailing slash.
    exact: Option<u32>,
    exact_slash: Option<u32>,
    children: Children,
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
    /// Compiles rules. Longest path wins, Exact beats Prefix; of two with the same path and kind the first stays.
    pub fn new(rules: impl IntoIterator<Item = (PathMatch, T)>) -> Self {
        let mut compiled = Self {
            values: Vec::new(),
            nodes: vec![Node::default()],
        };
        for (path, value) in rules {
            compiled.insert(&path, value);
        }
        compiled
    }

    fn insert(&mut self, path: &PathMatch, value: T) {
        let mut at = 0;
        for element in elements(path.value()) {
            at = match self.nodes[at].children.find(element) {
                Some(child) => child as usize,
                None => {
                    let child = self.nodes.len();
                    self.nodes.push(Node::default());
                    self.nodes[at].children.insert(element, child as u32);
                    child
                }
            };
        }
        let node = &mut self.nodes[at];
        let slot = match path.kind() {
            PathKind::Prefix => &mut node.prefix,
            PathKind::Exact if path.value().ends_with('/') => &mut node.exact_slash,
            PathKind::Exact => &mut node.exact,
        };
        if slot.is_none() {
            *slot = Some(self.values.len() as u32);
            self.values.push(value);
        }
    }

    /// The value of the best rule for a normalised path (no query).
    pub fn find(&self, path: &str) -> Option<&T> {
        let mut node = &self.nodes[0];
        let mut best = node.prefix;
        let mut rest = elements(path);
        let mut whole = true;
        for element in &mut rest {
            let Some(child) = node.children.find(element) else {
                whole = false;
                break;
            };
            node = &self.nodes[child as usize];
            best = node.prefix.or(best);
        }
        if whole {
            let exact = if path.ends_with('/') {
                node.exact_slash
            } else {
                node.exact
            };
            best = exact.or(best);
        }
        best.map(|index| &self.values[index as usize])
    }

    /// All values, in the order they were given.
    pub fn values(&self) -> &[T] {
        &self.values
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
    use super::HostRules;
    use crate::route::{PathKind, PathMatch};

    /// `rules` is a list of `Exact /a` or `Prefix /a`; the answer is the rule's text.
    fn check(rules: &[&str], path: &str, expected: Option<&str>) {
        let compiled = HostRules::new(rules.iter().map(|text| {
            let (kind, value) = text.split_once(' ').unwrap();
            let kind = match kind {
                "Exact" => PathKind::Exact,
                _ => PathKind::Prefix,
            };
            (PathMatch::new(kind, value).unwrap(), *text)
        }));
        assert_eq!(
            compiled.find(path).copied(),
            expected,
            "{rules:?} for {path}"
        );
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
}
