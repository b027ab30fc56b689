//! JSON to messages, by the numbers in the type table. What a message does not know is left out.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use crate::time;
use crate::types::{Field, Shape, Type, TypeId, by_name};

use super::wire::{put_bytes, put_double, put_int};

const SCHEMA_PROPS: &str =
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps";

pub(super) fn encode(type_id: TypeId, object: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    if let Value::Object(map) = object {
        message(type_id.get(), map, &mut out);
    }
    out
}

fn message(kind: &'static Type, map: &Map<String, Value>, out: &mut Vec<u8>) {
    for field in &kind.fields {
        match &field.shape {
            Shape::Object(inner) if field.inline => {
                let mut nested = Vec::new();
                message(inner.get(), map, &mut nested);
                put_bytes(out, field.number, &nested);
            }
            _ => {
                if let Some(value) = map.get(field.name).filter(|value| !value.is_null()) {
                    write_field(field, value, out);
                }
            }
        }
    }
}

fn write_field(field: &'static Field, value: &Value, out: &mut Vec<u8>) {
    if field.number == 0 {
        return;
    }
    match (&field.shape, value) {
        (Shape::List(item), Value::Array(items)) => {
            for one in items {
                write_value(field.number, item, one, out);
            }
        }
        (Shape::Map(item), Value::Object(entries)) => {
            for (key, one) in entries {
                let mut entry = Vec::new();
                put_bytes(&mut entry, 1, key.as_bytes());
                write_value(2, item, one, &mut entry);
                put_bytes(out, field.number, &entry);
            }
        }
        (shape, value) => write_value(field.number, shape, value, out),
    }
}

fn write_value(number: u32, shape: &'static Shape, value: &Value, out: &mut Vec<u8>) {
    match (shape, value) {
        (Shape::String, Value::String(text)) => put_bytes(out, number, text.as_bytes()),
        (Shape::Bool, Value::Bool(flag)) => put_int(out, number, u64::from(*flag)),
        (Shape::Int32 | Shape::Int64, Value::Number(n)) => {
            // Negative numbers take ten bytes, as protobuf sign-extends them.
            put_int(out, number, n.as_i64().unwrap_or(0) as u64);
        }
        (Shape::Float, Value::Number(n)) => put_double(out, number, n.as_f64().unwrap_or(0.0)),
        (Shape::Bytes, Value::String(text)) => {
            put_bytes(out, number, &STANDARD.decode(text).unwrap_or_default());
        }
        (Shape::Object(inner), Value::Object(map)) => {
            let mut nested = Vec::new();
            message(inner.get(), map, &mut nested);
            put_bytes(out, number, &nested);
        }
        (Shape::List(item), Value::Array(items)) => {
            let mut nested = Vec::new();
            for one in items {
                write_value(1, item, one, &mut nested);
            }
            put_bytes(out, number, &nested);
        }
        (special, value) => {
            if let Some(nested) = special_message(special, value) {
                put_bytes(out, number, &nested);
            }
        }
    }
}

fn special_message(shape: &Shape, value: &Value) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    match (shape, value) {
        (Shape::Time | Shape::MicroTime, Value::String(text)) => {
            let when = time::parse(text)?;
            put_int(&mut out, 1, when.as_second() as u64);
            put_int(&mut out, 2, when.subsec_nanosecond() as u64);
        }
        (Shape::Duration, Value::String(text)) => {
            put_int(&mut out, 1, time::parse_go_duration(text)? as u64);
        }
        (Shape::Quantity, Value::String(text)) => put_bytes(&mut out, 1, text.as_bytes()),
        (Shape::IntOrString, Value::String(text)) => {
            put_int(&mut out, 1, 1);
            put_int(&mut out, 2, 0);
            put_bytes(&mut out, 3, text.as_bytes());
        }
        (Shape::IntOrString, Value::Number(number)) => {
            put_int(&mut out, 1, 0);
            put_int(&mut out, 2, number.as_i64().unwrap_or(0) as u64);
            put_bytes(&mut out, 3, b"");
        }
        (Shape::RawExtension | Shape::FieldsV1 | Shape::Json, any) => {
            put_bytes(&mut out, 1, any.to_string().as_bytes());
        }
        (Shape::SchemaOrBool, Value::Bool(allows)) => put_int(&mut out, 1, u64::from(*allows)),
        (Shape::SchemaOrBool, Value::Object(map)) => {
            put_int(&mut out, 1, 1);
            put_bytes(&mut out, 2, &schema_props(map));
        }
        (Shape::SchemaOrArray | Shape::SchemaOrStrings, Value::Object(map)) => {
            put_bytes(&mut out, 1, &schema_props(map));
        }
        (Shape::SchemaOrArray | Shape::SchemaOrStrings, Value::Array(items)) => {
            for item in items {
                match item {
                    Value::Object(map) => put_bytes(&mut out, 2, &schema_props(map)),
                    Value::String(text) => put_bytes(&mut out, 2, text.as_bytes()),
                    _ => {}
                }
            }
        }
        _ => return None,
    }
    Some(out)
}

fn schema_props(map: &Map<String, Value>) -> Vec<u8> {
    let mut out = Vec::new();
    if let Some(props) = by_name(SCHEMA_PROPS) {
        message(props.get(), map, &mut out);
    }
    out
}
