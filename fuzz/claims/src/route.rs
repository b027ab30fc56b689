//! Paths and routes.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::sync::Arc;

use meshgate_codec::{Method, Target};
use meshgate_routing::route::{
    Conditions, HeaderMatch, HostName, HostRules, NoRoute, PathKind, PathMatch, Pattern,
    QueryMatch, RequestMatch, RouteRequest, RouteTable, ValueMatch, normalise,
};

/// Input: `host path`, and on each further line a rule: `= host path` for an exact path, `^ host path` for a prefix and
/// `~ host path` for a regular expression. After each path there may be words: `:GET` is a method, `name=value` a header
/// field and `?name=value` a parameter of the query; of a rule a value after `~` is a regular expression.
/// A path has one form, which is what goes out and can be a rule's; the tree of rules finds what looking at each rule
/// finds.
pub fn route(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let mut lines = text.lines();
    let mut words = lines.next().unwrap_or_default().splitn(3, ' ');
    let (host, path) = (
        words.next().unwrap_or_default(),
        words.next().unwrap_or_default(),
    );
    let asked: Vec<Word<'_>> = read_words(words.next().unwrap_or_default());
    let rules: Vec<Rule<'_>> = lines.filter_map(Rule::read).collect();
    let Ok(normal) = normalise(path) else {
        return;
    };
    one_form(&normal);
    same_as_one_by_one(&rules, host, &normal, &asked);
}

/// What is asked, or demanded, besides the path.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Word<'a> {
    Method(&'a str),
    Header(&'a str, &'a str),
    Query(&'a str, &'a str),
}

fn read_words(text: &str) -> Vec<Word<'_>> {
    text.split(' ').filter_map(Word::read).collect()
}

impl<'a> Word<'a> {
    fn read(word: &'a str) -> Option<Self> {
        if let Some(method) = word.strip_prefix(':') {
            return Some(Self::Method(method));
        }
        let (name, value) = word.split_once('=')?;
        Some(match name.strip_prefix('?') {
            Some(name) => Self::Query(name, value),
            None => Self::Header(name, value),
        })
    }
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

struct Rule<'a> {
    host: HostName,
    matches: RequestMatch,
    /// Of each name the first: the others do not count.
    demands: Vec<Word<'a>>,
}

impl<'a> Rule<'a> {
    fn read(line: &'a str) -> Option<Self> {
        let mut words = line.splitn(4, ' ');
        let kind = match words.next()? {
            "=" => PathKind::Exact,
            "^" => PathKind::Prefix,
            "~" => PathKind::Regex,
            _ => return None,
        };
        let host = HostName::parse(words.next()?).ok()?;
        let path = PathMatch::new(kind, words.next()?).ok()?;
        let words = read_words(words.next().unwrap_or_default());
        let conditions = conditions(&words)?;
        let mut seen = BTreeSet::new();
        let demands = words.into_iter().filter(|word| {
            seen.insert(match word {
                Word::Method(_) => String::new(),
                Word::Header(name, _) => name.to_ascii_lowercase(),
                Word::Query(name, _) => format!("?{name}"),
            })
        });
        Some(Self {
            host,
            matches: RequestMatch { path, conditions },
            demands: demands.collect(),
        })
    }

    /// What makes a rule better than another of the same host: an exact path, a longer prefix, an expression last; then a
    /// method, more header fields, more parameters.
    fn rank(&self) -> (u8, usize, [usize; 3]) {
        let path = &self.matches.path;
        let length = path.value().trim_end_matches('/').len();
        let count = |is: fn(&Word<'_>) -> bool| self.demands.iter().filter(|word| is(word)).count();
        let demands = [
            count(|word| matches!(word, Word::Method(_))),
            count(|word| matches!(word, Word::Header(..))),
            count(|word| matches!(word, Word::Query(..))),
        ];
        match path.kind() {
            PathKind::Exact => (2, length, demands),
            PathKind::Prefix => (1, length, demands),
            PathKind::Regex => (0, 0, demands),
        }
    }

    /// Whether each demand is met by something that was asked.
    fn is_met(&self, asked: &[Word<'_>]) -> bool {
        self.demands.iter().all(|demand| match demand {
            Word::Method(wanted) => method(asked) == *wanted,
            Word::Header(name, wanted) => header(asked, name).is_some_and(|it| same(&it, wanted)),
            Word::Query(name, wanted) => parameter(asked, name).is_some_and(|it| same(&it, wanted)),
        })
    }
}

/// The rule's conditions as the engine has them; of two methods the first counts.
fn conditions(words: &[Word<'_>]) -> Option<Conditions> {
    let value = |text: &str| match text.strip_prefix('~') {
        Some(pattern) => Pattern::new(pattern).ok().map(ValueMatch::Regex),
        None => Some(ValueMatch::Exact(text.into())),
    };
    let (mut conditions, mut headers, mut query) = (Conditions::default(), Vec::new(), Vec::new());
    for word in words.iter().rev() {
        match word {
            Word::Method(method) => conditions = conditions.with_method(method).ok()?,
            Word::Header(name, wanted) => {
                headers.push(HeaderMatch::new(name, value(wanted)?).ok()?);
            }
            Word::Query(name, wanted) => query.push(QueryMatch::new(name, value(wanted)?).ok()?),
        }
    }
    headers.reverse();
    query.reverse();
    let conditions = conditions.with_headers(headers).ok()?;
    conditions.with_query(query).ok()
}

fn same(value: &str, wanted: &str) -> bool {
    match wanted.strip_prefix('~') {
        Some(pattern) => Pattern::new(pattern).is_ok_and(|it| it.matches(value.as_bytes())),
        None => value == wanted,
    }
}

/// The first that is asked; a GET without one.
fn method<'a>(asked: &[Word<'a>]) -> &'a str {
    let named = asked.iter().find_map(|word| match word {
        Word::Method(method) => Some(*method),
        _ => None,
    });
    named.unwrap_or("GET")
}

/// All of a name as one.
fn header(asked: &[Word<'_>], name: &str) -> Option<String> {
    let values: Vec<&str> = asked
        .iter()
        .filter_map(|word| match word {
            Word::Header(other, value) if other.eq_ignore_ascii_case(name) => Some(*value),
            _ => None,
        })
        .collect();
    (!values.is_empty()).then(|| values.join(", "))
}

/// The first of a name.
fn parameter(asked: &[Word<'_>], name: &str) -> Option<String> {
    asked.iter().find_map(|word| match word {
        Word::Query(other, value) if *other == name => Some((*value).to_owned()),
        _ => None,
    })
}

/// The parameters as a query says them, with each byte of theirs encoded.
fn query(asked: &[Word<'_>]) -> String {
    let encoded =
        |text: &str| -> String { text.bytes().map(|byte| format!("%{byte:02x}")).collect() };
    let parameters: Vec<String> = asked
        .iter()
        .filter_map(|word| match word {
            Word::Query(name, value) => Some(format!("{}={}", encoded(name), encoded(value))),
            _ => None,
        })
        .collect();
    parameters.join("&")
}

/// The longest name of a table; a host beyond it belongs to rules for any host.
const HOST_BYTES_MAX: usize = 253;

fn same_as_one_by_one(rules: &[Rule<'_>], host: &str, path: &str, asked: &[Word<'_>]) {
    let field = |name: &str| header(asked, name).map(|value| Cow::Owned(value.into_bytes()));
    let request = RouteRequest {
        method: method(asked),
        path,
        query: &query(asked),
        field: &field,
    };
    let table = table(rules);
    let found = table.find(host, &request).map(|found| *found.rule);
    assert_eq!(found, one_by_one(rules, host, path, asked));
}

fn one_by_one(
    rules: &[Rule<'_>],
    host: &str,
    path: &str,
    asked: &[Word<'_>],
) -> Result<usize, NoRoute> {
    let named = host.trim_end_matches('.').to_ascii_lowercase();
    let precision = |name: &HostName| match name {
        HostName::Exact(_) => 2,
        HostName::Wildcard(_) => 1,
        HostName::Any => 0,
    };
    let mut missing = NoRoute::Host;
    for wanted in [2, 1, 0] {
        let of_host = || {
            rules.iter().enumerate().filter(|(_, rule)| {
                let fits = wanted == 0 || named.len() <= HOST_BYTES_MAX;
                precision(&rule.host) == wanted && fits && rule.host.matches(&named)
            })
        };
        if of_host().next().is_some() {
            missing = NoRoute::Path;
        }
        let of_path = || of_host().filter(|(_, rule)| rule.matches.path.matches(path));
        if of_path().next().is_none() {
            continue;
        }
        // Of equal ones the first stays.
        let best = of_path()
            .filter(|(_, rule)| rule.is_met(asked))
            .max_by_key(|(index, rule)| (rule.rank(), Reverse(*index)));
        return best.map(|(index, _)| index).ok_or(NoRoute::Conditions);
    }
    Err(missing)
}

/// Each rule's value is its place.
fn table(rules: &[Rule<'_>]) -> RouteTable<usize> {
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
            .map(|(index, rule)| (rule.matches.clone(), index));
        (host.clone(), Arc::new(HostRules::new(of_host)))
    }))
}
