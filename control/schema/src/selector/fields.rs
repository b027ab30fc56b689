//! Field selectors: `metadata.name=a,spec.nodeName!=b`.

use serde_json::Value;

use crate::registry::Builtin;
use crate::value::{at, text_at};
use crate::{Failure, Kind};

/// Requirements on fields that must all hold. Without any, everything matches.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FieldSelector {
    terms: Vec<Term>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Term {
    path: String,
    equal: bool,
    value: String,
}

impl FieldSelector {
    /// The query parameter `fieldSelector`.
    pub fn parse(text: &str) -> Result<FieldSelector, Failure> {
        let mut terms = Vec::new();
        for part in split_terms(text) {
            let refuse = || {
                Failure::bad_request(format!(
                    "invalid selector: '{text}'; can't understand '{part}'"
                ))
            };
            let sign = part.find(['=', '!']).ok_or_else(refuse)?;
            let (path, rest) = part.split_at(sign);
            let (equal, value) = match (rest.strip_prefix("!="), rest.strip_prefix("==")) {
                (Some(value), _) => (false, value),
                (_, Some(value)) => (true, value),
                _ => (true, rest.strip_prefix('=').ok_or_else(refuse)?),
            };
            terms.push(Term {
                path: path.trim().to_owned(),
                equal,
                value: unescape(value),
            });
        }
        Ok(FieldSelector { terms })
    }

    pub fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    /// Refuses fields by which this kind cannot be selected.
    pub fn check(&self, kind: &Kind) -> Result<(), Failure> {
        match self
            .terms
            .iter()
            .find(|term| !kind.field_selectable(&term.path))
        {
            None => Ok(()),
            Some(term) => Err(Failure::bad_request(format!(
                "field label not supported: {}",
                term.path
            ))),
        }
    }

    pub fn matches(&self, kind: &Kind, object: &Value) -> bool {
        self.terms
            .iter()
            .all(|term| (kind.field_value(object, &term.path) == term.value) == term.equal)
    }

    /// The value that a field must have, where the selector says so (`metadata.name=a` makes a list a get).
    pub fn exact(&self, path: &str) -> Option<&str> {
        let found = self
            .terms
            .iter()
            .find(|term| term.equal && term.path == path)?;
        Some(&found.value)
    }
}

/// Splits at commas that no backslash escapes.
fn split_terms(text: &str) -> Vec<&str> {
    let mut terms = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (index, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                terms.push(&text[start..index]);
                start = index + 1;
            }
            _ => {}
        }
    }
    terms.push(&text[start..]);
    terms.retain(|term| !term.trim().is_empty());
    terms
}

fn unescape(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        out.push(if c == '\\' {
            chars.next().unwrap_or(c)
        } else {
            c
        });
    }
    out
}

impl Kind {
    /// Whether objects of this kind can be selected by that field.
    pub fn field_selectable(&self, path: &str) -> bool {
        if path == "metadata.name"
            || (path == "metadata.namespace" && (self.namespaced() || self.builtin_id().is_some()))
        {
            return true;
        }
        if let Some(custom) = self.custom_version() {
            return custom.selectable_fields.iter().any(|field| field == path);
        }
        let fields: &[&str] = match self.builtin_id() {
            Some(Builtin::Pod) => &[
                "spec.nodeName",
                "spec.restartPolicy",
                "spec.schedulerName",
                "spec.serviceAccountName",
                "spec.hostNetwork",
                "status.phase",
                "status.podIP",
                "status.podIPs",
                "status.nominatedNodeName",
            ],
            Some(Builtin::Node) => &["spec.unschedulable"],
            Some(Builtin::Namespace) => &["status.phase", "name"],
            Some(Builtin::Secret) => &["type"],
            Some(Builtin::ReplicaSet) => &["status.replicas"],
            Some(Builtin::Service) => &["spec.clusterIP", "spec.type"],
            Some(Builtin::Event | Builtin::EventsEvent) => &[
                "involvedObject.kind",
                "involvedObject.namespace",
                "involvedObject.name",
                "involvedObject.uid",
                "involvedObject.apiVersion",
                "involvedObject.resourceVersion",
                "involvedObject.fieldPath",
                "regarding.kind",
                "regarding.namespace",
                "regarding.name",
                "regarding.uid",
                "regarding.apiVersion",
                "regarding.resourceVersion",
                "regarding.fieldPath",
                "reason",
                "reportingComponent",
                "reportingController",
                "source",
                "type",
            ],
            _ => &[],
        };
        fields.contains(&path)
    }

    /// The text that a field selector compares.
    pub fn field_value(&self, object: &Value, path: &str) -> String {
        match (self.builtin_id(), path) {
            (Some(Builtin::Event | Builtin::EventsEvent), _) => event_field(object, path),
            (Some(Builtin::Node), "spec.unschedulable")
            | (Some(Builtin::Pod), "spec.hostNetwork") => at(object, path)
                .and_then(Value::as_bool)
                .unwrap_or(false)
                .to_string(),
            (Some(Builtin::Namespace), "name") => text_at(object, "metadata.name").to_owned(),
            (Some(Builtin::ReplicaSet), _) if path == "status.replicas" => at(object, path)
                .and_then(Value::as_i64)
                .unwrap_or(0)
                .to_string(),
            _ => match at(object, path) {
                None | Some(Value::Null) => String::new(),
                Some(Value::String(text)) => text.clone(),
                Some(other) => other.to_string(),
            },
        }
    }
}

/// Events have two faces with different names for the same things; selectors use either on both.
fn event_field(object: &Value, path: &str) -> String {
    let either = |a: &str, b: &str| {
        let found = text_at(object, a);
        if found.is_empty() {
            text_at(object, b).to_owned()
        } else {
            found.to_owned()
        }
    };
    let inner = path
        .strip_prefix("involvedObject.")
        .or(path.strip_prefix("regarding."));
    match (inner, path) {
        (Some(inner), _) => either(
            &format!("involvedObject.{inner}"),
            &format!("regarding.{inner}"),
        ),
        (_, "source") => {
            let found = either("source.component", "deprecatedSource.component");
            if found.is_empty() {
                either("reportingComponent", "reportingController")
            } else {
                found
            }
        }
        (_, "reportingComponent" | "reportingController") => {
            either("reportingComponent", "reportingController")
        }
        _ => text_at(object, path).to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::Registry;

    #[test]
    fn selections() {
        let registry = Registry::builtin();
        let pods = registry.resource("", "v1", "pods").unwrap();
        let pod = json!({"metadata": {"name": "a", "namespace": "n"}, "spec": {"nodeName": "n1"}, "status": {"phase": "Running"}});
        for (selector, want) in [
            ("", true),
            ("metadata.name=a", true),
            ("metadata.name==a,status.phase!=Running", false),
            ("spec.nodeName=", false),
            ("spec.hostNetwork=false", true),
            (r"metadata.name=a\,b", false),
        ] {
            let parsed = FieldSelector::parse(selector).unwrap();
            parsed.check(pods).unwrap();
            assert_eq!(parsed.matches(pods, &pod), want, "{selector}");
        }
        let parsed = FieldSelector::parse("spec.image=a").unwrap();
        assert_eq!(
            parsed.check(pods).unwrap_err().message,
            "field label not supported: spec.image"
        );
        assert!(FieldSelector::parse("nonsense").is_err());
        assert_eq!(
            FieldSelector::parse("metadata.name=x")
                .unwrap()
                .exact("metadata.name"),
            Some("x")
        );
    }

    #[test]
    fn events_have_two_faces() {
        let registry = Registry::builtin();
        let selector = FieldSelector::parse("involvedObject.name=p,source=kubelet").unwrap();
        let core = registry.resource("", "v1", "events").unwrap();
        let newer = registry.resource("events.k8s.io", "v1", "events").unwrap();
        assert!(selector.matches(
            core,
            &json!({"involvedObject": {"name": "p"}, "source": {"component": "kubelet"}})
        ));
        assert!(selector.matches(
            newer,
            &json!({"regarding": {"name": "p"}, "deprecatedSource": {"component": "kubelet"}})
        ));
    }
}
