//! From any JSON to the JSON that a real server would store: known fields in declared order, checked types, canonical
//! words, empty values left out as the Go structs leave them out.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use crate::quantity::{MALFORMED, Quantity};
use crate::time;
use crate::types::{Field, Presence, Shape, Type, TypeId, by_name};
use crate::value::go_kind;

const SCHEMA_PROPS: &str =
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps";
/// More unknown fields than this are not listed.
const UNKNOWN_MAX: usize = 100;

/// A value in its stored form, and the fields nobody knows.
#[derive(Debug)]
pub(crate) struct Converted {
    pub(crate) object: Value,
    pub(crate) unknown: Vec<String>,
}

/// Brings an object into the form of its type. The error is in the words of Go's decoder.
pub(crate) fn convert(type_id: TypeId, object: Value) -> Result<Converted, String> {
    let mut walk = Walk::default();
    let object = walk.object(type_id.get(), object)?;
    Ok(Converted {
        object,
        unknown: walk.unknown,
    })
}

/// The stored form of a type of which nothing is set.
pub(crate) fn zero(type_id: TypeId) -> Value {
    zero_value(&Shape::Object(type_id))
}

#[derive(Default)]
struct Walk {
    /// Path in the object: `spec.containers[0]`.
    path: String,
    /// Names of the fields on the way, without indexes, as Go reports them.
    fields: Vec<&'static str>,
    /// The struct around the current value.
    owner: &'static str,
    unknown: Vec<String>,
}

impl Walk {
    fn object(&mut self, kind: &'static Type, value: Value) -> Result<Value, String> {
        let map = match value {
            Value::Object(map) => map,
            Value::Null => Map::new(),
            other => return Err(self.mismatch(&other, &format!("v1.{}", kind.short_name()))),
        };
        let outer_owner = std::mem::replace(&mut self.owner, kind.short_name());
        let flat = kind.flat_fields();
        let mut slots: Vec<Option<Value>> = vec![None; flat.len()];
        for (key, value) in map {
            match flat.iter().position(|field| field.name == key) {
                Some(index) => slots[index] = Some(self.field(flat[index], value)?),
                None => self.note_unknown(&key),
            }
        }
        self.owner = outer_owner;
        let mut out = Map::new();
        for (field, slot) in flat.into_iter().zip(slots) {
            if let Some(value) = stored(field, slot) {
                out.insert(field.name.to_owned(), value);
            }
        }
        Ok(Value::Object(out))
    }

    fn field(&mut self, field: &'static Field, value: Value) -> Result<Value, String> {
        let len_before = self.step(field.name);
        self.fields.push(field.name);
        let is_pointer = matches!(field.presence, Presence::Pointer | Presence::Nullable);
        let result = if value.is_null() && is_pointer {
            Ok(Value::Null)
        } else {
            self.shape(&field.shape, value)
        };
        self.fields.pop();
        self.path.truncate(len_before);
        result
    }

    fn shape(&mut self, shape: &'static Shape, value: Value) -> Result<Value, String> {
        match shape {
            Shape::Object(inner) => self.object(inner.get(), value),
            Shape::List(item) => self.list(item, value),
            Shape::Map(item) => self.map(item, value),
            Shape::SchemaOrBool if value.is_boolean() => Ok(value),
            Shape::SchemaOrStrings | Shape::SchemaOrArray if value.is_array() => {
                self.schema_array(shape, value)
            }
            Shape::SchemaOrBool | Shape::SchemaOrArray | Shape::SchemaOrStrings => {
                self.schema_props(value)
            }
            Shape::RawExtension | Shape::FieldsV1 | Shape::Json => Ok(value),
            _ if value.is_null() => Ok(Value::Null),
            scalar => self.scalar(scalar, value),
        }
    }

    fn list(&mut self, item: &'static Shape, value: Value) -> Result<Value, String> {
        let items = match value {
            Value::Array(items) => items,
            Value::Null => return Ok(Value::Null),
            other => return Err(self.mismatch(&other, &format!("[]{}", go_type(item)))),
        };
        let mut out = Vec::with_capacity(items.len());
        for (index, one) in items.into_iter().enumerate() {
            let len_before = self.path.len();
            self.path.push_str(&format!("[{index}]"));
            let one = self.shape(item, one)?;
            out.push(if one.is_null() { zero_value(item) } else { one });
            self.path.truncate(len_before);
        }
        Ok(Value::Array(out))
    }

    fn map(&mut self, item: &'static Shape, value: Value) -> Result<Value, String> {
        let entries = match value {
            Value::Object(entries) => entries,
            Value::Null => return Ok(Value::Null),
            other => return Err(self.mismatch(&other, &format!("map[string]{}", go_type(item)))),
        };
        let mut entries: Vec<(String, Value)> = entries.into_iter().collect();
        // Go writes maps sorted by key.
        entries.sort_by(|a, b| a.0.cmp(&b.0));
        let mut out = Map::new();
        for (key, one) in entries {
            let len_before = self.step(&key);
            let one = self.shape(item, one)?;
            out.insert(key, if one.is_null() { zero_value(item) } else { one });
            self.path.truncate(len_before);
        }
        Ok(Value::Object(out))
    }

    fn scalar(&self, shape: &'static Shape, value: Value) -> Result<Value, String> {
        match (shape, &value) {
            (Shape::String, Value::String(_)) | (Shape::Bool, Value::Bool(_)) => Ok(value),
            (Shape::Int32, Value::Number(number)) => match number.as_i64() {
                Some(whole) if i32::try_from(whole).is_ok() => Ok(value),
                _ => Err(self.number_mismatch(&value, "int32")),
            },
            (Shape::Int64, Value::Number(number)) => match number.as_i64() {
                Some(_) => Ok(value),
                None => Err(self.number_mismatch(&value, "int64")),
            },
            (Shape::Float, Value::Number(_)) => Ok(value),
            (Shape::Bytes, Value::String(text)) => canonical_base64(text),
            (Shape::Time, Value::String(text)) => canonical_time(text, false),
            (Shape::MicroTime, Value::String(text)) => canonical_time(text, true),
            (Shape::Duration, Value::String(text)) => match time::parse_go_duration(text) {
                Some(_) => Ok(value),
                None => Err(format!("time: invalid duration {text:?}")),
            },
            (Shape::Quantity, Value::String(text)) => canonical_quantity(text),
            (Shape::Quantity, Value::Number(number)) => canonical_quantity(&number.to_string()),
            (Shape::Quantity, _) => Err(MALFORMED.to_owned()),
            (Shape::IntOrString, Value::String(_)) => Ok(value),
            (Shape::IntOrString, Value::Number(number)) => match number.as_i64() {
                Some(whole) if i32::try_from(whole).is_ok() => Ok(value),
                _ => Err(format!(
                    "json: cannot unmarshal number {number} into Go value of type int32"
                )),
            },
            (Shape::IntOrString, other) => Err(format!(
                "json: cannot unmarshal {} into Go value of type int32",
                go_kind(other)
            )),
            (Shape::Time | Shape::MicroTime | Shape::Duration, other) => Err(format!(
                "json: cannot unmarshal {} into Go value of type string",
                go_kind(other)
            )),
            (other, _) => Err(self.mismatch(&value, &go_type(other))),
        }
    }

    fn schema_array(&mut self, shape: &'static Shape, value: Value) -> Result<Value, String> {
        let Value::Array(items) = value else {
            return Ok(Value::Null);
        };
        let convert = |item: Value| match (shape, item) {
            (Shape::SchemaOrStrings, Value::String(text)) => Ok(Value::String(text)),
            (Shape::SchemaOrStrings, other) => Err(self.mismatch(&other, "string")),
            (_, item) => self.schema_props(item),
        };
        items
            .into_iter()
            .map(convert)
            .collect::<Result<Vec<_>, _>>()
            .map(Value::Array)
    }

    fn schema_props(&mut self, value: Value) -> Result<Value, String> {
        match by_name(SCHEMA_PROPS) {
            Some(props) => self.object(props.get(), value),
            None => Ok(value),
        }
    }

    /// Extends the path; returns its length before.
    fn step(&mut self, key: &str) -> usize {
        let len_before = self.path.len();
        if len_before > 0 {
            self.path.push('.');
        }
        self.path.push_str(key);
        len_before
    }

    fn note_unknown(&mut self, key: &str) {
        if self.unknown.len() < UNKNOWN_MAX {
            let len_before = self.step(key);
            self.unknown.push(self.path.clone());
            self.path.truncate(len_before);
        }
    }

    fn mismatch(&self, found: &Value, wanted: &str) -> String {
        self.wrong(go_kind(found), wanted)
    }

    fn number_mismatch(&self, found: &Value, wanted: &str) -> String {
        self.wrong(&format!("number {found}"), wanted)
    }

    fn wrong(&self, found: &str, wanted: &str) -> String {
        if self.fields.is_empty() {
            return format!("json: cannot unmarshal {found} into Go value of type {wanted}");
        }
        let (owner, path) = (self.owner, self.fields.join("."));
        format!(
            "json: cannot unmarshal {found} into Go struct field {owner}.{path} of type {wanted}"
        )
    }
}

/// What is stored of a field: None leaves it out.
fn stored(field: &Field, slot: Option<Value>) -> Option<Value> {
    match slot {
        Some(value) if !value.is_null() => {
            (field.presence != Presence::OmitEmpty || !is_empty(&value)).then_some(value)
        }
        _ if field.presence == Presence::Always => Some(zero_value(&field.shape)),
        _ if field.presence == Presence::Nullable => Some(Value::Null),
        _ => None,
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
}

fn zero_value(shape: &Shape) -> Value {
    match shape {
        Shape::String | Shape::Duration => "".into(),
        Shape::Bool => false.into(),
        Shape::Int32 | Shape::Int64 | Shape::Float | Shape::IntOrString => 0.into(),
        Shape::Quantity => "0".into(),
        Shape::Object(inner) => {
            let mut map = Map::new();
            for field in inner.get().flat_fields() {
                if let Some(value) = stored(field, None) {
                    map.insert(field.name.to_owned(), value);
                }
            }
            Value::Object(map)
        }
        _ => Value::Null,
    }
}

fn canonical_quantity(text: &str) -> Result<Value, String> {
    Quantity::parse(text)
        .map(|quantity| quantity.to_string().into())
        .map_err(|e| e.to_string())
}

fn canonical_base64(text: &str) -> Result<Value, String> {
    let joined: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
    match STANDARD.decode(&joined) {
        Ok(_) => Ok(joined.into()),
        Err(base64::DecodeError::InvalidByte(offset, _)) => {
            Err(format!("illegal base64 data at input byte {offset}"))
        }
        Err(_) => Err(format!(
            "illegal base64 data at input byte {}",
            joined.len()
        )),
    }
}

fn canonical_time(text: &str, micro: bool) -> Result<Value, String> {
    if text.is_empty() {
        return Ok(Value::Null);
    }
    let layout = if micro {
        "2006-01-02T15:04:05.000000Z07:00"
    } else {
        "2006-01-02T15:04:05Z07:00"
    };
    let Some(parsed) = time::parse(text) else {
        return Err(format!(
            "parsing time {text:?} as {layout:?}: cannot parse {text:?} as \"2006\""
        ));
    };
    Ok(if micro {
        time::micro(parsed)
    } else {
        time::rfc3339(parsed)
    }
    .into())
}

/// The type in Go's words.
fn go_type(shape: &Shape) -> String {
    match shape {
        Shape::String => "string".into(),
        Shape::Bool => "bool".into(),
        Shape::Int32 => "int32".into(),
        Shape::Int64 => "int64".into(),
        Shape::Float => "float64".into(),
        Shape::Bytes => "[]uint8".into(),
        Shape::Time => "v1.Time".into(),
        Shape::MicroTime => "v1.MicroTime".into(),
        Shape::Duration => "v1.Duration".into(),
        Shape::Quantity => "resource.Quantity".into(),
        Shape::IntOrString => "intstr.IntOrString".into(),
        Shape::RawExtension => "runtime.RawExtension".into(),
        Shape::FieldsV1 => "v1.FieldsV1".into(),
        Shape::Json => "v1.JSON".into(),
        Shape::SchemaOrBool | Shape::SchemaOrArray | Shape::SchemaOrStrings => {
            "v1.JSONSchemaProps".into()
        }
        Shape::Object(inner) => format!("v1.{}", inner.get().short_name()),
        Shape::List(item) => format!("[]{}", go_type(item)),
        Shape::Map(item) => format!("map[string]{}", go_type(item)),
    }
}
