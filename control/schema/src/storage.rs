//! The form in which objects are stored: one version per kind, events of both groups as core events.

use serde_json::{Map, Value};

use crate::custom;
use crate::decode::convert;
use crate::registry::{Builtin, Kind, Rules};
use crate::types::by_name;

/// Names in `events.k8s.io` and in the core group of the same things.
const EVENT_NAMES: [(&str, &str); 7] = [
    ("reportingController", "reportingComponent"),
    ("regarding", "involvedObject"),
    ("note", "message"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
];

impl Kind {
    /// From this version's form to what is stored.
    pub fn to_storage(&self, mut object: Value) -> Value {
        match self.rules() {
            Rules::Custom(version) => {
                if let Some(fields) = object.as_object_mut() {
                    fields.insert(
                        "apiVersion".into(),
                        version.storage_api_version.clone().into(),
                    );
                }
                object
            }
            Rules::Builtin {
                id: Builtin::EventsEvent,
                ..
            } => rename(
                object,
                |name| {
                    EVENT_NAMES
                        .iter()
                        .find(|pair| pair.0 == name)
                        .map(|pair| pair.1)
                },
                "v1",
                "io.k8s.api.core.v1.Event",
            ),
            Rules::Builtin { .. } => object,
        }
    }

    /// From what is stored to this version's form; what the schema has since learned to default is filled in.
    pub fn from_storage(&self, mut object: Value) -> Value {
        match self.rules() {
            Rules::Custom(version) => {
                if let Some(fields) = object.as_object_mut() {
                    fields.insert("apiVersion".into(), self.api_version().into());
                }
                custom::default(&mut object, version.schema());
                object
            }
            Rules::Builtin {
                id: Builtin::EventsEvent,
                type_name,
            } => rename(
                object,
                |name| {
                    EVENT_NAMES
                        .iter()
                        .find(|pair| pair.1 == name)
                        .map(|pair| pair.0)
                },
                "events.k8s.io/v1",
                type_name,
            ),
            Rules::Builtin { .. } => object,
        }
    }
}

fn rename(
    object: Value,
    name_of: impl Fn(&str) -> Option<&'static str>,
    api_version: &str,
    type_name: &str,
) -> Value {
    let Value::Object(fields) = object else {
        return object;
    };
    let renamed: Map<String, Value> = fields
        .into_iter()
        .map(|(key, value)| (name_of(&key).map_or(key, str::to_owned), value))
        .collect();
    let renamed = Value::Object(renamed);
    // The other face has its own order of fields and its own idea of which are always there.
    let mut object = match by_name(type_name).map(|type_id| convert(type_id, renamed.clone())) {
        Some(Ok(converted)) => converted.object,
        _ => renamed,
    };
    if let Some(fields) = object.as_object_mut() {
        fields.insert("apiVersion".into(), api_version.into());
    }
    object
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::{FieldValidation, Registry};

    #[test]
    fn events_survive_both_faces() {
        let registry = Registry::builtin();
        let newer = registry.resource("events.k8s.io", "v1", "events").unwrap();
        let event = json!({"metadata": {"name": "e", "namespace": "n"}, "eventTime": "2024-01-01T00:00:00.000001Z",
            "regarding": {"kind": "Pod", "name": "p"}, "note": "text", "reportingController": "c", "reportingInstance": "i",
            "reason": "R", "action": "A", "type": "Normal", "deprecatedCount": 3});
        let event = newer
            .decode_value(event, FieldValidation::Strict)
            .unwrap()
            .object;
        let stored = newer.to_storage(event.clone());
        assert_eq!(stored["apiVersion"], "v1");
        assert_eq!(stored["involvedObject"]["name"], "p");
        assert_eq!(stored["message"], "text");
        assert_eq!(stored["count"], 3);
        assert_eq!(newer.from_storage(stored), event);
        assert_eq!(newer.storage_resource(), ("", "events"));
    }
}
