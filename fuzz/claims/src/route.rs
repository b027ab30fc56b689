//! Paths and routes.

use std::sync::Arc;

use meshgate_codec::{Method, Target};
use meshgate_routing::route::{
    HostName, HostRules, NoRoute, PathKind, PathMatch, RouteTable, normalise,
};

/// Input: `host path`, and on each further line a rule, `= host path` for an exact path and `^ host path` for a prefix.
/// A path has one form, which is what goes out and can be a rule's; the tree of rules finds what looking at each rule
/// finds.
pub fn route(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let mut lines = text.lines();
    let (host, path) = lines
        .next()
        .and_then(|line| line.split_once(' '))
        .unwrap_or_default();
    let rules: Vec<Rule> = lines.filter_map(Rule::read).collect();
    let Ok(normal) = normalise(path) else {
        return;
    };
    one_form(&normal);
    same_as_one_by_one(&rules, host, &normal);
}

fn one_form(normal: &str) {
    assert_eq!(normalise(normal).as_deref(), Ok(normal));
    assert!(normal.starts_with('/') && normal.bytes().all(|byte| byte.is_ascii_graphic()));
    assert!(!normal.contains("//") && !normal.contains(['\\', '?', '#']));
    for element in normal.split('/') {
        let name = element.split(';').next().unwrap_or_default();
        assert!(element.is_empty() || !matches!(name, "." | ".."));
    }
    // What was matched is what stands in the request line, and what the next server takes out of it.
    let mut target = Target::default();
    assert_eq!(target.read(&Method::Get, normal.as_bytes()), Ok(()));
    assert_eq!(target.path_and_query(), Some(normal));
    if normal.len() <= 8 * 1024 {
        for kind in [PathKind::Exact, PathKind::Prefix] {
            let rule = PathMatch::new(kind, normal).expect("any normal path can be a rule's");
            assert!(rule.matches(normal));
        }
    }
}

struct Rule {
    host: HostName,
    path: PathMatch,
}

impl Rule {
    fn read(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let kind = match words.next()? {
            "=" => PathKind::Exact,
            "^" => PathKind::Prefix,
            _ => return None,
        };
        Some(Self {
            host: HostName::parse(words.next()?).ok()?,
            path: PathMatch::new(kind, words.next()?).ok()?,
        })
    }

    /// What makes a rule better than another of the same host: a longer path, then an exact one.
    fn rank(&self) -> (usize, bool) {
        let length = self.path.value().trim_end_matches('/').len();
        (length, self.path.kind() == PathKind::Exact)
    }
}

/// The longest name of a table; a host beyond it belongs to rules for any host.
const HOST_BYTES_MAX: usize = 253;

fn same_as_one_by_one(rules: &[Rule], host: &str, path: &str) {
    let named = host.trim_end_matches('.').to_ascii_lowercase();
    let precision = |name: &HostName| match name {
        HostName::Exact(_) => 2,
        HostName::Wildcard(_) => 1,
        HostName::Any => 0,
    };
    let mut expected = Err(NoRoute::Host);
    for wanted in [2, 1, 0] {
        let of_host = || {
            rules.iter().enumerate().filter(|(_, rule)| {
                let fits = wanted == 0 || named.len() <= HOST_BYTES_MAX;
                precision(&rule.host) == wanted && fits && rule.host.matches(&named)
            })
        };
        if of_host().next().is_some() {
            expected = Err(NoRoute::Path);
        }
        // Of equal ones the first stays.
        let best = of_host()
            .filter(|(_, rule)| rule.path.matches(path))
            .max_by_key(|(index, rule)| (rule.rank(), std::cmp::Reverse(*index)));
        if let Some((index, _)) = best {
            expected = Ok(index);
            break;
        }
    }
    assert_eq!(table(rules).find(host, path).copied(), expected);
}

/// Each rule's value is its place.
fn table(rules: &[Rule]) -> RouteTable<usize> {
    let mut hosts: Vec<&HostName> = Vec::new();
    for rule in rules {
        if !hosts.contains(&&rule.host) {
            hosts.push(&rule.host);
        }
    }
    RouteTable::new(hosts.into_iter().map(|host| {
        let of_host = rules
            .iter()
            .enumerate()
            .filter(|(_, rule)| rule.host == *host)
            .map(|(index, rule)| (rule.path.clone(), index));
        (host.clone(), Arc::new(HostRules::new(of_host)))
    }))
}
