//! A view of one level of a structural schema.

use serde_json::{Map, Value};

/// One level of an OpenAPI schema, as the JSON that it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Schema<'s> {
    raw: Option<&'s Map<String, Value>>,
}

/// What `additionalProperties` says about keys that `properties` does not name.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Additional<'s> {
    Unsaid,
    Allowed(bool),
    Of(Schema<'s>),
}

impl<'s> Schema<'s> {
    pub(crate) fn new(raw: &'s Value) -> Schema<'s> {
        Schema {
            raw: raw.as_object(),
        }
    }

    pub(crate) fn raw(&self, key: &str) -> Option<&'s Value> {
        self.raw?.get(key).filter(|value| !value.is_null())
    }

    pub(crate) fn is_missing(&self) -> bool {
        self.raw.is_none()
    }

    pub(crate) fn text(&self, key: &str) -> &'s str {
        self.raw(key).and_then(Value::as_str).unwrap_or("")
    }

    pub(crate) fn flag(&self, key: &str) -> bool {
        self.raw(key).and_then(Value::as_bool).unwrap_or(false)
    }

    pub(crate) fn number(&self, key: &str) -> Option<f64> {
        self.raw(key).and_then(Value::as_f64)
    }

    pub(crate) fn count(&self, key: &str) -> Option<usize> {
        self.raw(key)
            .and_then(Value::as_u64)
            .and_then(|count| usize::try_from(count).ok())
    }

    pub(crate) fn list(&self, key: &str) -> &'s [Value] {
        self.raw(key)
            .and_then(Value::as_array)
            .map_or(&[], Vec::as_slice)
    }

    pub(crate) fn texts(&self, key: &str) -> impl Iterator<Item = &'s str> {
        self.list(key).iter().filter_map(Value::as_str)
    }

    pub(crate) fn type_name(&self) -> &'s str {
        self.text("type")
    }

    pub(crate) fn nullable(&self) -> bool {
        self.flag("nullable")
    }

    pub(crate) fn preserves_unknown(&self) -> bool {
        self.flag("x-kubernetes-preserve-unknown-fields")
    }

    pub(crate) fn is_embedded(&self) -> bool {
        self.flag("x-kubernetes-embedded-resource")
    }

    pub(crate) fn is_int_or_string(&self) -> bool {
        self.flag("x-kubernetes-int-or-string")
    }

    pub(crate) fn default_value(&self) -> Option<&'s Value> {
        self.raw("default")
    }

    pub(crate) fn properties(&self) -> impl Iterator<Item = (&'s str, Schema<'s>)> {
        let map = self.raw("properties").and_then(Value::as_object);
        map.into_iter()
            .flatten()
            .map(|(name, schema)| (name.as_str(), Schema::new(schema)))
    }

    pub(crate) fn property(&self, name: &str) -> Option<Schema<'s>> {
        self.raw("properties")?.get(name).map(Schema::new)
    }

    pub(crate) fn items(&self) -> Option<Schema<'s>> {
        self.raw("items").map(Schema::new)
    }

    pub(crate) fn additional(&self) -> Additional<'s> {
        match self.raw("additionalProperties") {
            None => Additional::Unsaid,
            Some(Value::Bool(allowed)) => Additional::Allowed(*allowed),
            Some(schema) => Additional::Of(Schema::new(schema)),
        }
    }

    /// The schema of an object's key, wherever it is described.
    pub(crate) fn of_key(&self, name: &str) -> Option<Schema<'s>> {
        self.property(name).or(match self.additional() {
            Additional::Of(schema) => Some(schema),
            _ => None,
        })
    }

    /// Whether this or a deeper level has CEL rules.
    pub(crate) fn has_rules(&self) -> bool {
        !self.list("x-kubernetes-validations").is_empty()
            || self.properties().any(|(_, schema)| schema.has_rules())
            || self.items().is_some_and(|schema| schema.has_rules())
            || matches!(self.additional(), Additional::Of(schema) if schema.has_rules())
    }
}
