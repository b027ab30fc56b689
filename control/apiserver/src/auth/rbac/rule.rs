//! One PolicyRule, and what it allows.

use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::auth::Attributes;

const ALL: &str = "*";

/// `rules[]` of a role. Lists that are empty match nothing, except names: no names means every name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::auth) struct Rule {
    pub(super) verbs: Vec<Box<str>>,
    pub(super) groups: Vec<Box<str>>,
    pub(super) resources: Vec<Box<str>>,
    pub(super) names: Vec<Box<str>>,
    pub(super) urls: Vec<Box<str>>,
}

impl Rule {
    /// The rules in a role's `rules`; what is not of the right shape was refused by validation and matches nothing here.
    pub(in crate::auth) fn all_of(rules: &Value) -> Arc<[Self]> {
        let rules = rules.as_array().into_iter().flatten();
        rules.map(Self::of).collect()
    }

    fn of(rule: &Value) -> Self {
        let list = |field: &str| {
            let items = rule[field].as_array().into_iter().flatten();
            items.filter_map(Value::as_str).map(Box::from).collect()
        };
        Self {
            verbs: list("verbs"),
            groups: list("apiGroups"),
            resources: list("resources"),
            names: list("resourceNames"),
            urls: list("nonResourceURLs"),
        }
    }

    /// Everything there is: what `system:masters` may do.
    pub(in crate::auth) fn everything() -> [Self; 2] {
        let all = || vec![Box::from(ALL)];
        let resources = Self {
            verbs: all(),
            groups: all(),
            resources: all(),
            ..Self::default()
        };
        let urls = Self {
            verbs: all(),
            urls: all(),
            ..Self::default()
        };
        [resources, urls]
    }

    pub(in crate::auth) fn allows(&self, what: &Attributes<'_>) -> bool {
        match *what {
            Attributes::Resource {
                verb,
                group,
                resource,
                subresource,
                name,
                ..
            } => {
                matches(&self.verbs, verb)
                    && matches(&self.groups, group)
                    && self.matches_resource(resource, subresource)
                    && (self.names.is_empty() || self.names.iter().any(|own| **own == *name))
            }
            Attributes::NonResource { verb, path } => {
                matches(&self.verbs, verb) && self.urls.iter().any(|url| url_covers(url, path))
            }
        }
    }

    fn matches_resource(&self, resource: &str, subresource: &str) -> bool {
        self.resources.iter().any(|own| {
            if &**own == ALL {
                return true;
            }
            if subresource.is_empty() {
                return **own == *resource;
            }
            own.split_once('/').is_some_and(|(own_resource, own_sub)| {
                own_sub == subresource && (own_resource == resource || own_resource == ALL)
            })
        })
    }

    /// Whether it speaks of resources, not of URLs.
    pub(in crate::auth) fn is_for_resources(&self) -> bool {
        !self.resources.is_empty()
    }

    /// As in a role, without empty lists.
    pub(in crate::auth) fn to_json(&self) -> Value {
        let mut rule = Map::new();
        let mut put = |field: &str, list: &[Box<str>]| {
            if !list.is_empty() {
                rule.insert(field.to_owned(), json!(list));
            }
        };
        put("verbs", &self.verbs);
        put("apiGroups", &self.groups);
        put("resources", &self.resources);
        put("resourceNames", &self.names);
        put("nonResourceURLs", &self.urls);
        Value::Object(rule)
    }
}

/// `*`, the path itself, or a prefix that ends in `*`.
pub(super) fn url_covers(url: &str, path: &str) -> bool {
    url == ALL
        || url == path
        || url
            .strip_suffix(ALL)
            .is_some_and(|prefix| path.starts_with(prefix))
}

fn matches(list: &[Box<str>], wanted: &str) -> bool {
    list.iter().any(|own| &**own == ALL || **own == *wanted)
}

impl fmt::Display for Rule {
    /// In the words of Kubernetes: `{APIGroups:["apps"], Resources:["deployments"], Verbs:["get"]}`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "{";
        let mut part = |f: &mut fmt::Formatter<'_>, field: &str, list: &[Box<str>]| {
            if list.is_empty() {
                return Ok(());
            }
            let words: Vec<String> = list.iter().map(|word| format!("{word:?}")).collect();
            write!(f, "{separator}{field}:[{}]", words.join(" "))?;
            separator = ", ";
            Ok(())
        };
        part(f, "APIGroups", &self.groups)?;
        part(f, "Resources", &self.resources)?;
        part(f, "ResourceNames", &self.names)?;
        part(f, "NonResourceURLs", &self.urls)?;
        part(f, "Verbs", &self.verbs)?;
        f.write_str("}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `request`: `verb group/resource[/subresource] [name]`, or `verb /path`.
    fn check(rule: &Value, request: &str, expected: bool) {
        let words: Vec<&str> = request.split(' ').collect();
        let what = if words[1].starts_with('/') {
            Attributes::NonResource {
                verb: words[0],
                path: words[1],
            }
        } else {
            let mut parts = words[1].split('/');
            let mut part = || parts.next().unwrap_or_default();
            Attributes::Resource {
                verb: words[0],
                group: part().trim_start_matches("core"),
                resource: part(),
                subresource: part(),
                namespace: "any",
                name: words.get(2).copied().unwrap_or_default(),
            }
        };
        assert_eq!(Rule::of(rule).allows(&what), expected, "{rule} {request}");
    }

    #[test]
    fn rules_allow_exactly_what_they_name() {
        let pods = json!({"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods"]});
        check(&pods, "get core/pods", true);
        check(&pods, "get core/pods web", true);
        check(&pods, "delete core/pods web", false);
        check(&pods, "get core/pods/log web", false);
        check(&pods, "get apps/pods web", false);
        check(&pods, "get core/secrets", false);
        check(&pods, "get /pods", false);

        let logs = json!({"verbs": ["*"], "apiGroups": [""], "resources": ["pods/log", "*/scale"]});
        check(&logs, "get core/pods/log web", true);
        check(&logs, "get core/pods web", false);
        check(&logs, "patch core/anything/scale x", true);
        check(&logs, "patch core/anything/status x", false);

        let named = json!({"verbs": ["get", "create"], "apiGroups": ["*"], "resources": ["*"], "resourceNames": ["a"]});
        check(&named, "get apps/deployments a", true);
        check(&named, "get apps/deployments/scale a", true);
        check(&named, "get apps/deployments b", false);
        check(&named, "create apps/deployments", false);
        check(&named, "get /healthz", false);

        let urls = json!({"verbs": ["get"], "nonResourceURLs": ["/version", "/metrics/*"]});
        check(&urls, "get /version", true);
        check(&urls, "get /version/x", false);
        check(&urls, "get /metrics/slis", true);
        check(&urls, "get /metrics", false);
        check(&urls, "post /version", false);
        check(&urls, "get core/pods", false);

        check(&json!({}), "get core/pods", false);
        check(
            &json!({"verbs": "get", "resources": 7}),
            "get core/pods",
            false,
        );
    }
}
