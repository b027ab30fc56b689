//! Reaching into JSON objects.

use serde_json::{Map, Value};

/// The value at a dotted path of object keys (`spec.template.metadata`).
pub(crate) fn at<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.')
        .try_fold(value, |inner, key| inner.get(key))
        .filter(|found| !found.is_null())
}

/// The text at a dotted path; empty when it is missing.
pub(crate) fn text_at<'a>(value: &'a Value, path: &str) -> &'a str {
    at(value, path).and_then(Value::as_str).unwrap_or("")
}

/// The whole number at a dotted path.
pub(crate) fn int_at(value: &Value, path: &str) -> Option<i64> {
    at(value, path).and_then(Value::as_i64)
}

pub(crate) fn bool_at(value: &Value, path: &str) -> bool {
    at(value, path).and_then(Value::as_bool).unwrap_or(false)
}

/// The items at a dotted path; none when it is missing.
pub(crate) fn list_at<'a>(value: &'a Value, path: &str) -> &'a [Value] {
    at(value, path)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

/// The entries at a dotted path; none when it is missing.
pub(crate) fn map_at<'a>(
    value: &'a Value,
    path: &str,
) -> impl Iterator<Item = (&'a str, &'a Value)> {
    let map = at(value, path).and_then(Value::as_object);
    map.into_iter()
        .flatten()
        .map(|(key, value)| (key.as_str(), value))
}

/// The items at a dotted path, to be changed.
pub(crate) fn list_at_mut<'a>(value: &'a mut Value, path: &str) -> &'a mut [Value] {
    let found = path
        .split('.')
        .try_fold(value, |inner, key| inner.get_mut(key));
    found
        .and_then(Value::as_array_mut)
        .map_or(&mut [], Vec::as_mut_slice)
}

/// The object at a dotted path, to be changed.
pub(crate) fn object_at_mut<'a>(
    value: &'a mut Value,
    path: &str,
) -> Option<&'a mut Map<String, Value>> {
    path.split('.')
        .try_fold(value, |inner, key| inner.get_mut(key))?
        .as_object_mut()
}

/// The object under a key, made when it is missing.
pub(crate) fn object_in<'a>(
    map: &'a mut Map<String, Value>,
    key: &str,
) -> &'a mut Map<String, Value> {
    let slot = map.entry(key).or_insert(Value::Null);
    if !slot.is_object() {
        *slot = Value::Object(Map::new());
    }
    slot.as_object_mut()
        .expect("made an object on the line above")
}

/// Sets a key that is missing, null or empty text.
pub(crate) fn set_if_unset(map: &mut Map<String, Value>, key: &str, value: impl Into<Value>) {
    let slot = map.entry(key).or_insert(Value::Null);
    if slot.is_null() || slot.as_str() == Some("") {
        *slot = value.into();
    }
}

/// Puts a value at a dotted path, making the objects on the way.
pub(crate) fn put_at(value: &mut Value, path: &str, new: Value) {
    let mut slot = value;
    for key in path.split('.') {
        if !slot.is_object() {
            *slot = Value::Object(Map::new());
        }
        slot = slot
            .as_object_mut()
            .expect("made an object on the lines above")
            .entry(key)
            .or_insert(Value::Null);
    }
    *slot = new;
}

/// The kind of a JSON value in Go's words.
pub(crate) fn go_kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}
