//! Does what somebody holds cover what they want to give? The heart of escalation prevention.

use super::rule::{Rule, url_covers};

/// Wanted rules are taken apart into single permissions; a role that comes to more than this is refused instead.
const PERMISSIONS_MAX: usize = 100_000;

/// Why a grant is not covered.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::auth) enum Uncovered {
    /// These single permissions are not held (at most [`SHOWN_MAX`]).
    NotHeld(Vec<Rule>),
    /// Too many single permissions to compare.
    TooMany,
}

/// Missing permissions that a refusal lists; more help nobody.
const SHOWN_MAX: usize = 20;

/// What of `wanted` is not covered by `held`.
pub(in crate::auth) fn uncovered(held: &[Rule], wanted: &[Rule]) -> Result<(), Uncovered> {
    let mut missing = Vec::new();
    let mut permissions = 0usize;
    for rule in wanted {
        // One held rule that covers the whole saves taking it apart: the usual case for administrators.
        if held.iter().any(|own| covers(own, rule)) {
            continue;
        }
        permissions = permissions.saturating_add(count(rule));
        if permissions > PERMISSIONS_MAX {
            return Err(Uncovered::TooMany);
        }
        each(rule, |single| {
            let covered = held.iter().any(|own| covers(own, single));
            if !covered && missing.len() < SHOWN_MAX {
                missing.push(single.clone());
            }
        });
    }
    if missing.is_empty() {
        Ok(())
    } else {
        Err(Uncovered::NotHeld(missing))
    }
}

/// How many single permissions a rule comes to.
fn count(rule: &Rule) -> usize {
    let resources = rule
        .groups
        .len()
        .saturating_mul(rule.resources.len())
        .saturating_mul(rule.names.len().max(1));
    let targets = resources.saturating_add(rule.urls.len());
    targets.saturating_mul(rule.verbs.len())
}

/// Calls `visit` with each single permission of a rule: one verb on one resource (of one name), or on one URL.
fn each(rule: &Rule, mut visit: impl FnMut(&Rule)) {
    let any_name = [Box::from("")];
    let names = if rule.names.is_empty() {
        &any_name[..]
    } else {
        &rule.names[..]
    };
    for verb in &rule.verbs {
        for group in &rule.groups {
            for resource in &rule.resources {
                for name in names {
                    visit(&Rule {
                        verbs: vec![verb.clone()],
                        groups: vec![group.clone()],
                        resources: vec![resource.clone()],
                        names: if name.is_empty() {
                            Vec::new()
                        } else {
                            vec![name.clone()]
                        },
                        urls: Vec::new(),
                    });
                }
            }
        }
        for url in &rule.urls {
            visit(&Rule {
                verbs: vec![verb.clone()],
                urls: vec![url.clone()],
                ..Rule::default()
            });
        }
    }
}

/// Whether one rule allows everything that another does.
fn covers(own: &Rule, wanted: &Rule) -> bool {
    let names = own.names.is_empty()
        || !wanted.names.is_empty() && wanted.names.iter().all(|name| own.names.contains(name));
    let resources = wanted
        .resources
        .iter()
        .all(|resource| covers_resource(&own.resources, resource));
    let urls = wanted
        .urls
        .iter()
        .all(|url| own.urls.iter().any(|own| url_covers(own, url)));
    covers_all(&own.verbs, &wanted.verbs)
        && covers_all(&own.groups, &wanted.groups)
        && resources
        && names
        && urls
}

fn covers_all(own: &[Box<str>], wanted: &[Box<str>]) -> bool {
    let has = |word: &str| own.iter().any(|own| **own == *word);
    has("*") || wanted.iter().all(|word| has(word))
}

fn covers_resource(own: &[Box<str>], wanted: &str) -> bool {
    let has = |word: &str| own.iter().any(|own| **own == *word);
    let subresource = wanted.split_once('/').map(|(_, subresource)| subresource);
    has("*")
        || has(wanted)
        || subresource.is_some_and(|subresource| has(&format!("*/{subresource}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn check(held: Value, wanted: Value, missing: &[&str]) {
        let shown = match uncovered(&Rule::all_of(&held), &Rule::all_of(&wanted)) {
            Ok(()) => Vec::new(),
            Err(Uncovered::NotHeld(missing)) => missing.iter().map(Rule::to_string).collect(),
            Err(Uncovered::TooMany) => vec!["too many".to_owned()],
        };
        assert_eq!(shown, missing, "{held} {wanted}");
    }

    fn rule(verbs: &[&str], groups: &[&str], resources: &[&str]) -> Value {
        json!({"verbs": verbs, "apiGroups": groups, "resources": resources})
    }

    #[test]
    fn grants_are_compared_permission_by_permission() {
        let all = json!([{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]);
        let pods = json!([rule(&["get", "list"], &[""], &["pods"])]);
        check(all.clone(), pods.clone(), &[]);
        check(pods.clone(), pods.clone(), &[]);
        check(
            json!([
                rule(&["get"], &[""], &["pods"]),
                rule(&["list"], &[""], &["pods"])
            ]),
            pods.clone(),
            &[],
        );
        check(
            json!([rule(&["get"], &[""], &["pods"])]),
            pods.clone(),
            &[r#"{APIGroups:[""], Resources:["pods"], Verbs:["list"]}"#],
        );
        check(
            pods.clone(),
            all.clone(),
            &[r#"{APIGroups:["*"], Resources:["*"], Verbs:["*"]}"#],
        );
        check(
            json!([rule(&["get"], &[""], &["*/status"])]),
            json!([rule(&["get"], &[""], &["pods/status"])]),
            &[],
        );
        let named = json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["a"]}]);
        check(
            named.clone(),
            json!([rule(&["get"], &[""], &["secrets"])]),
            &[r#"{APIGroups:[""], Resources:["secrets"], Verbs:["get"]}"#],
        );
        check(json!([rule(&["get"], &[""], &["secrets"])]), named, &[]);
        let urls = json!([{"verbs": ["get"], "nonResourceURLs": ["/metrics/*"]}]);
        check(
            urls.clone(),
            json!([{"verbs": ["get"], "nonResourceURLs": ["/metrics/a"]}]),
            &[],
        );
        check(
            urls,
            json!([{"verbs": ["get"], "nonResourceURLs": ["*"]}]),
            &[r#"{NonResourceURLs:["*"], Verbs:["get"]}"#],
        );
        check(
            all,
            json!([{"verbs": ["get"], "nonResourceURLs": ["/x"]}]),
            &[r#"{NonResourceURLs:["/x"], Verbs:["get"]}"#],
        );
    }

    #[test]
    fn a_role_of_a_billion_permissions_is_refused_quickly() {
        let words: Vec<String> = (0..1000).map(|n| format!("w{n}")).collect();
        let bomb = json!([{"verbs": words, "apiGroups": words, "resources": words}]);
        check(
            json!([rule(&["get"], &[""], &["pods"])]),
            bomb,
            &["too many"],
        );
    }
}
