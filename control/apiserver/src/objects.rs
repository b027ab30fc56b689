//! How objects lie in the store: keys, the stored JSON, and reading it back.
//!
//! A stored object is its JSON with an empty `metadata.resourceVersion` at a known place: right behind the head
//! `{"kind":…,"apiVersion":…,"metadata":{"resourceVersion":"`. So a GET, a list and a watch event are the stored
//! bytes with the revision between two slices, without parsing.

use bytes::Bytes;
use meshgate_schema::{Failure, Kind};
use meshgate_store::{Entry, Revision};
use serde_json::{Map, Value};

/// Where everything lies.
pub(crate) const ROOT: &str = "/registry/";

/// `/registry/<group>/<resource>/`, with `<namespace>/` if one is given.
pub(crate) fn prefix_of(group: &str, resource: &str, namespace: &str) -> String {
    let group = if group.is_empty() { "core" } else { group };
    if namespace.is_empty() {
        format!("{ROOT}{group}/{resource}/")
    } else {
        format!("{ROOT}{group}/{resource}/{namespace}/")
    }
}

/// The prefix of a kind's objects, in one namespace or all.
pub(crate) fn prefix(kind: &Kind, namespace: &str) -> String {
    let (group, resource) = kind.storage_resource();
    prefix_of(group, resource, namespace)
}

/// The key of one object.
pub(crate) fn key(kind: &Kind, namespace: &str, name: &str) -> String {
    let namespace = if kind.namespaced() { namespace } else { "" };
    prefix(kind, namespace) + name
}

/// What a key says: the parts of `/registry/<group>/<resource>/[<namespace>/]<name>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KeyParts<'a> {
    pub(crate) group: &'a str,
    pub(crate) resource: &'a str,
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
}

impl<'a> KeyParts<'a> {
    pub(crate) fn parse(key: &'a str) -> Option<KeyParts<'a>> {
        let mut parts = key.strip_prefix(ROOT)?.splitn(4, '/');
        let group = parts.next()?;
        let resource = parts.next()?;
        let third = parts.next()?;
        let (namespace, name) = match parts.next() {
            Some(name) => (third, name),
            None => ("", third),
        };
        Some(KeyParts {
            group: if group == "core" { "" } else { group },
            resource,
            namespace,
            name,
        })
    }
}

fn head(kind: &str, api_version: &str) -> String {
    // Both are identifiers: nothing in them needs escaping.
    format!(r#"{{"kind":"{kind}","apiVersion":"{api_version}","metadata":{{"resourceVersion":""#)
}

fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object
        .get(field)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// The stored form of an object that is already in its storage version.
pub(crate) fn encode(object: &Value) -> Bytes {
    let mut out = head(text(object, "kind"), text(object, "apiVersion")).into_bytes();
    out.push(b'"');
    let empty = Map::new();
    let metadata = object
        .get("metadata")
        .and_then(Value::as_object)
        .unwrap_or(&empty);
    for (name, value) in metadata
        .iter()
        .filter(|(name, _)| *name != "resourceVersion")
    {
        write_field(&mut out, name, value);
    }
    out.push(b'}');
    for (name, value) in object.as_object().unwrap_or(&empty) {
        if !matches!(name.as_str(), "kind" | "apiVersion" | "metadata") {
            write_field(&mut out, name, value);
        }
    }
    out.push(b'}');
    out.into()
}

fn write_field(out: &mut Vec<u8>, name: &str, value: &Value) {
    out.push(b',');
    write_value(out, &Value::from(name));
    out.push(b':');
    write_value(out, value);
}

/// JSON of a value; writing to memory and of string-keyed maps cannot fail.
pub(crate) fn write_value(out: &mut Vec<u8>, value: &Value) {
    serde_json::to_writer(out, value).expect("a JSON value is always serialisable to memory");
}

/// The object of an entry in its storage version, with its resource version.
pub(crate) fn decode(entry: &Entry) -> Result<Value, Failure> {
    decode_at(entry, entry.modified)
}

/// As [`decode`], under another revision: a deleted object carries that of its deletion.
pub(crate) fn decode_at(entry: &Entry, revision: Revision) -> Result<Value, Failure> {
    let parsed: Result<Value, _> = serde_json::from_slice(&entry.value);
    let mut object = parsed.map_err(|error| {
        Failure::internal(format!(
            "the stored object {} is damaged: {error}",
            entry.key
        ))
    })?;
    set_resource_version(&mut object, revision);
    Ok(object)
}

/// The object of an entry as a kind serves it.
pub(crate) fn read(kind: &Kind, entry: &Entry) -> Result<Value, Failure> {
    Ok(kind.from_storage(decode(entry)?))
}

/// As [`read`], under another revision.
pub(crate) fn read_at(kind: &Kind, entry: &Entry, revision: Revision) -> Result<Value, Failure> {
    Ok(kind.from_storage(decode_at(entry, revision)?))
}

/// Sets `metadata.resourceVersion`.
pub(crate) fn set_resource_version(object: &mut Value, revision: Revision) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.insert("resourceVersion".into(), revision.to_string().into());
    }
}

/// Writes objects of one kind as JSON, from the stored bytes where they are in the asked-for version.
pub(crate) struct JsonWriter<'a> {
    kind: &'a Kind,
    head: String,
    /// Length of `"kind":…,"apiVersion":…,` in the head, which items of built-in lists go without.
    type_meta: usize,
}

impl<'a> JsonWriter<'a> {
    pub(crate) fn new(kind: &'a Kind) -> JsonWriter<'a> {
        let head = head(kind.kind(), &kind.api_version());
        let type_meta = head.find(r#""metadata""#).map_or(0, |at| at - 1);
        JsonWriter {
            kind,
            head,
            type_meta,
        }
    }

    /// A whole object.
    pub(crate) fn object(
        &self,
        entry: &Entry,
        revision: Revision,
        out: &mut Vec<u8>,
    ) -> Result<(), Failure> {
        match entry.value.strip_prefix(self.head.as_bytes()) {
            Some(tail) => {
                out.extend_from_slice(self.head.as_bytes());
                out.extend_from_slice(revision.to_string().as_bytes());
                out.extend_from_slice(tail);
            }
            None => write_value(out, &read_at(self.kind, entry, revision)?),
        }
        Ok(())
    }

    /// An item of a list: built-in kinds go without kind and version there, as in Kubernetes.
    pub(crate) fn item(&self, entry: &Entry, out: &mut Vec<u8>) -> Result<(), Failure> {
        match entry.value.strip_prefix(self.head.as_bytes()) {
            Some(tail) if !self.kind.is_custom() => {
                out.push(b'{');
                out.extend_from_slice(&self.head.as_bytes()[1 + self.type_meta..]);
                out.extend_from_slice(entry.modified.to_string().as_bytes());
                out.extend_from_slice(tail);
                Ok(())
            }
            _ => self.object(entry, entry.modified, out),
        }
    }
}

/// `metadata` of an object, made if it is missing.
pub(crate) fn metadata_mut(object: &mut Value) -> &mut Map<String, Value> {
    if !object.is_object() {
        *object = Value::Object(Map::new());
    }
    let fields = object.as_object_mut().expect("made an object above");
    let metadata = fields
        .entry("metadata")
        .or_insert_with(|| Value::Object(Map::new()));
    if !metadata.is_object() {
        *metadata = Value::Object(Map::new());
    }
    metadata.as_object_mut().expect("made an object above")
}

/// A text of `metadata`; empty when it is missing.
pub(crate) fn meta<'a>(object: &'a Value, field: &str) -> &'a str {
    object
        .get("metadata")
        .and_then(|metadata| metadata.get(field))
        .and_then(Value::as_str)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use meshgate_schema::Registry;
    use serde_json::json;

    fn entry(object: &Value) -> Entry {
        Entry {
            key: "/registry/core/configmaps/a/b".into(),
            value: encode(object),
            created: 1,
            modified: 7,
        }
    }

    fn check(group: &str, plural: &str, stored: Value, whole: &str, item: &str) {
        let registry = Registry::builtin();
        let kind = registry
            .resource(group, "v1", plural)
            .expect("a built-in kind");
        let writer = JsonWriter::new(kind);
        let (mut got_whole, mut got_item) = (Vec::new(), Vec::new());
        writer
            .object(&entry(&stored), 9, &mut got_whole)
            .expect("stored JSON is readable");
        writer
            .item(&entry(&stored), &mut got_item)
            .expect("stored JSON is readable");
        assert_eq!(String::from_utf8_lossy(&got_whole), whole);
        assert_eq!(String::from_utf8_lossy(&got_item), item);
    }

    #[test]
    fn stored_bytes_are_served_with_their_revision() {
        check(
            "",
            "configmaps",
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a\"b", "resourceVersion": "3"}, "data": {}}),
            r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"resourceVersion":"9","name":"a\"b"},"data":{}}"#,
            r#"{"metadata":{"resourceVersion":"7","name":"a\"b"},"data":{}}"#,
        );
    }

    #[test]
    fn keys_are_read_back() {
        let parts = |key| {
            KeyParts::parse(key)
                .map(|parts| (parts.group, parts.resource, parts.namespace, parts.name))
        };
        assert_eq!(
            parts("/registry/core/pods/a/b"),
            Some(("", "pods", "a", "b"))
        );
        assert_eq!(
            parts("/registry/core/nodes/n"),
            Some(("", "nodes", "", "n"))
        );
        assert_eq!(parts("/registry/core/nodes"), None);
        assert_eq!(parts("/elsewhere/core/nodes/n"), None);
    }
}
