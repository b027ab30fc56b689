//! Which objects a list, a watch or a collection's deletion is about.

use meshgate_schema::{Failure, FieldSelector, Kind, LabelSelector};
use meshgate_store::{Entry, Event};
use serde_json::{Map, Value};

use crate::http::query::Query;
use crate::objects::{decode, prefix};

/// Objects under a prefix that match the selectors.
#[derive(Debug)]
pub(crate) struct Selection {
    pub(crate) prefix: String,
    /// The field selector's `metadata.name`, which keys answer without parsing.
    name: Option<String>,
    labels: LabelSelector,
    fields: FieldSelector,
}

impl Selection {
    pub(crate) fn parse(kind: &Kind, namespace: &str, query: &Query) -> Result<Selection, Failure> {
        let labels = LabelSelector::parse(query.find("labelSelector").unwrap_or_default())?;
        let fields = FieldSelector::parse(query.find("fieldSelector").unwrap_or_default())?;
        fields.check(kind)?;
        Ok(Selection {
            prefix: prefix(kind, namespace),
            name: fields.exact("metadata.name").map(str::to_owned),
            labels,
            fields,
        })
    }

    /// Whether every object under the prefix is meant.
    pub(crate) fn is_everything(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    fn rules_out(&self, key: &str) -> bool {
        self.name
            .as_ref()
            .is_some_and(|name| key.rsplit('/').next() != Some(name))
    }

    fn matches_object(&self, kind: &Kind, object: &Value) -> bool {
        self.labels.matches(object) && self.fields.matches(kind, object)
    }

    /// Whether an entry belongs to the selection.
    pub(crate) fn matches(&self, kind: &Kind, entry: &Entry) -> bool {
        if self.is_everything() {
            return true;
        }
        if self.rules_out(&entry.key) {
            return false;
        }
        decode(entry).is_ok_and(|object| self.matches_object(kind, &kind.from_storage(object)))
    }

    /// What a stored event is to this selection.
    pub(crate) fn change(&self, kind: &Kind, event: &Event) -> Change {
        let (was, is) = if self.is_everything() {
            (event.previous.is_some(), event.current.is_some())
        } else if self.rules_out(event.key()) {
            (false, false)
        } else {
            let outlines = event.derived(Outlines::of);
            let matches = |outline: &Option<Value>| {
                outline
                    .as_ref()
                    .is_some_and(|outline| match kind.storage_resource() {
                        stored if stored == (kind.group(), kind.plural()) => {
                            self.matches_object(kind, outline)
                        }
                        _ => self.matches_object(kind, &kind.from_storage(outline.clone())),
                    })
            };
            (matches(&outlines.previous), matches(&outlines.current))
        };
        match (was, is) {
            (false, true) => Change::Added,
            (true, true) => Change::Modified,
            (true, false) => Change::Deleted,
            (false, false) => Change::None,
        }
    }
}

/// What happened, as a watcher with a selector sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// Created, or changed into the selection.
    Added,
    Modified,
    /// Deleted, or changed out of the selection.
    Deleted,
    /// Not of the selection, before or after.
    None,
}

/// What selectors can look at, of both sides of an event: parsed once for all watchers, and small, because it
/// stays in memory as long as the event does.
#[derive(Debug)]
struct Outlines {
    previous: Option<Value>,
    current: Option<Value>,
}

impl Outlines {
    fn of(event: &Event) -> Outlines {
        let outline = |entry: Option<&Entry>| {
            let object = entry.and_then(|entry| decode(entry).ok())?;
            Some(outline(&object))
        };
        Outlines {
            previous: outline(event.previous.as_deref()),
            current: outline(event.current.as_deref()),
        }
    }
}

/// Labels, and plain values down to the second level: no selectable field lies deeper.
fn outline(object: &Value) -> Value {
    let plain = |value: &Value| !value.is_object() && !value.is_array();
    let mut out = Map::new();
    for (name, value) in object.as_object().into_iter().flatten() {
        match value {
            Value::Object(inner) => {
                let kept = inner.iter().filter(|(field, value)| {
                    plain(value) || (name == "metadata" && *field == "labels")
                });
                let kept: Map<String, Value> = kept
                    .map(|(field, value)| (field.clone(), value.clone()))
                    .collect();
                if !kept.is_empty() {
                    out.insert(name.clone(), Value::Object(kept));
                }
            }
            value if plain(value) => {
                out.insert(name.clone(), value.clone());
            }
            _ => {}
        }
    }
    Value::Object(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_outline_is_small() {
        let pod = json!({
            "kind": "Pod",
            "metadata": {"name": "a", "labels": {"x": "y"}, "annotations": {"long": "text"}},
            "spec": {"nodeName": "n", "containers": [{"name": "c"}], "securityContext": {"a": 1}},
            "status": {"phase": "Running", "conditions": []},
            "data": {"inner": {"deep": 1}},
            "list": [1],
        });
        let expected = json!({
            "kind": "Pod",
            "metadata": {"name": "a", "labels": {"x": "y"}},
            "spec": {"nodeName": "n"},
            "status": {"phase": "Running"},
        });
        assert_eq!(outline(&pod), expected);
    }
}
