//! Messages to JSON, by the numbers in the type table. Unknown numbers are skipped, as protobuf asks.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Number, Value};

use crate::time;
use crate::types::{Field, Shape, Type, TypeId, by_name};

use super::wire::{Malformed, Reader, WireValue};

/// Deeper nesting is refused: JSONSchemaProps contain themselves.
const DEPTH_MAX: usize = 64;
const SCHEMA_PROPS: &str =
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps";

/// The JSON of a message. Values are not canonical yet: `decode::convert` does that for all forms alike.
pub(crate) fn decode(type_id: TypeId, bytes: &[u8]) -> Result<Value, Malformed> {
    let mut map = Map::new();
    message(type_id.get(), bytes, &mut map, 0)?;
    Ok(Value::Object(map))
}

fn message(
    kind: &'static Type,
    bytes: &[u8],
    map: &mut Map<String, Value>,
    depth: usize,
) -> Result<(), Malformed> {
    if depth > DEPTH_MAX {
        return Err(Malformed);
    }
    let mut reader = Reader::new(bytes);
    while let Some((number, value)) = reader.next_field()? {
        let found = kind
            .fields
            .iter()
            .find(|field| field.number == number && number != 0);
        if let Some(field) = found {
            read_field(field, value, map, depth)?;
        }
    }
    Ok(())
}

fn read_field(
    field: &'static Field,
    wire: WireValue<'_>,
    map: &mut Map<String, Value>,
    depth: usize,
) -> Result<(), Malformed> {
    match (&field.shape, wire) {
        (Shape::Object(inner), WireValue::Bytes(bytes)) if field.inline => {
            message(inner.get(), bytes, map, depth + 1)
        }
        (Shape::List(item), wire) => {
            let slot = map
                .entry(field.name)
                .or_insert_with(|| Value::Array(Vec::new()));
            let list = slot.as_array_mut().ok_or(Malformed)?;
            match (&**item, wire) {
                (Shape::Int32 | Shape::Int64 | Shape::Bool, WireValue::Bytes(packed)) => {
                    let mut reader = Reader::new(packed);
                    while !reader.is_empty() {
                        let one = WireValue::Varint(reader.varint()?);
                        list.push(value_of(item, one, depth)?);
                    }
                }
                (_, wire) => list.push(value_of(item, wire, depth)?),
            }
            Ok(())
        }
        (Shape::Map(item), WireValue::Bytes(entry)) => {
            let (key, value) = map_entry(item, entry, depth)?;
            let slot = map
                .entry(field.name)
                .or_insert_with(|| Value::Object(Map::new()));
            slot.as_object_mut().ok_or(Malformed)?.insert(key, value);
            Ok(())
        }
        (shape, wire) => {
            map.insert(field.name.to_owned(), value_of(shape, wire, depth)?);
            Ok(())
        }
    }
}

fn map_entry(
    item: &'static Shape,
    entry: &[u8],
    depth: usize,
) -> Result<(String, Value), Malformed> {
    let (mut key, mut value) = (String::new(), None);
    let mut reader = Reader::new(entry);
    while let Some((number, wire)) = reader.next_field()? {
        match (number, wire) {
            (1, WireValue::Bytes(bytes)) => key = text(bytes)?,
            (2, wire) => value = Some(value_of(item, wire, depth)?),
            _ => {}
        }
    }
    Ok((key, value.unwrap_or(Value::Null)))
}

fn value_of(shape: &'static Shape, wire: WireValue<'_>, depth: usize) -> Result<Value, Malformed> {
    Ok(match (shape, wire) {
        (Shape::String, WireValue::Bytes(bytes)) => text(bytes)?.into(),
        (Shape::Bool, WireValue::Varint(number)) => (number != 0).into(),
        (Shape::Int32, WireValue::Varint(number)) => i64::from(number as i32).into(),
        (Shape::Int64, WireValue::Varint(number)) => (number as i64).into(),
        (Shape::Float, WireValue::Fixed64(bits)) => {
            Number::from_f64(f64::from_bits(bits)).map_or(Value::Null, Value::Number)
        }
        (Shape::Bytes, WireValue::Bytes(bytes)) => STANDARD.encode(bytes).into(),
        (Shape::Object(inner), WireValue::Bytes(bytes)) => {
            let mut map = Map::new();
            message(inner.get(), bytes, &mut map, depth + 1)?;
            Value::Object(map)
        }
        // A list as the value of a map is a message of its own: `message ExtraValue { repeated string items = 1; }`.
        (Shape::List(item), WireValue::Bytes(bytes)) => {
            let mut items = Vec::new();
            let mut reader = Reader::new(bytes);
            while let Some((number, wire)) = reader.next_field()? {
                if number == 1 {
                    items.push(value_of(item, wire, depth)?);
                }
            }
            Value::Array(items)
        }
        (special, WireValue::Bytes(bytes)) => special_value(special, bytes, depth)?,
        _ => return Err(Malformed),
    })
}

fn special_value(shape: &Shape, bytes: &[u8], depth: usize) -> Result<Value, Malformed> {
    match shape {
        Shape::Time | Shape::MicroTime => Ok(time_value(shape, &numbers(bytes)?)),
        Shape::Duration => {
            let nanos = numbers(bytes)?.first().copied().unwrap_or(0) as i64;
            Ok(format!("{}ns", nanos).into())
        }
        Shape::Quantity => first_bytes(bytes, 1)?.map_or(Ok(Value::Null), |b| Ok(text(b)?.into())),
        Shape::IntOrString => int_or_string(bytes),
        Shape::RawExtension | Shape::FieldsV1 | Shape::Json => match first_bytes(bytes, 1)? {
            Some(raw) => serde_json::from_slice(raw).map_err(|_| Malformed),
            None => Ok(Value::Null),
        },
        Shape::SchemaOrBool => match first_bytes(bytes, 2)? {
            Some(schema) => schema_props(schema, depth),
            None => Ok((numbers(bytes)?.first().copied().unwrap_or(0) != 0).into()),
        },
        Shape::SchemaOrArray | Shape::SchemaOrStrings => match first_bytes(bytes, 1)? {
            Some(schema) => schema_props(schema, depth),
            None => schema_list(shape, bytes, depth),
        },
        _ => Err(Malformed),
    }
}

/// Varints of a message by number, from 1.
fn numbers(bytes: &[u8]) -> Result<Vec<u64>, Malformed> {
    let mut found = Vec::new();
    let mut reader = Reader::new(bytes);
    while let Some((number, wire)) = reader.next_field()? {
        if let WireValue::Varint(value) = wire
            && (1..=4).contains(&number)
        {
            found.resize(found.len().max(number as usize), 0);
            found[number as usize - 1] = value;
        }
    }
    Ok(found)
}

fn first_bytes(bytes: &[u8], wanted: u32) -> Result<Option<&[u8]>, Malformed> {
    let mut reader = Reader::new(bytes);
    while let Some((number, wire)) = reader.next_field()? {
        if let WireValue::Bytes(found) = wire
            && number == wanted
        {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

fn time_value(shape: &Shape, numbers: &[u64]) -> Value {
    let Some(seconds) = numbers.first() else {
        return Value::Null;
    };
    let nanos = numbers.get(1).copied().unwrap_or(0) as i32;
    match Timestamp::new(*seconds as i64, nanos) {
        Ok(when) if *shape == Shape::MicroTime => time::micro(when).into(),
        Ok(when) => time::rfc3339(when).into(),
        Err(_) => Value::Null,
    }
}

fn int_or_string(bytes: &[u8]) -> Result<Value, Malformed> {
    let numbers = numbers(bytes)?;
    if numbers.first() == Some(&1) {
        return Ok(text(first_bytes(bytes, 3)?.unwrap_or_default())?.into());
    }
    Ok(i64::from(numbers.get(1).copied().unwrap_or(0) as i32).into())
}

fn schema_props(bytes: &[u8], depth: usize) -> Result<Value, Malformed> {
    let props = by_name(SCHEMA_PROPS).ok_or(Malformed)?;
    let mut map = Map::new();
    message(props.get(), bytes, &mut map, depth + 1)?;
    Ok(Value::Object(map))
}

fn schema_list(shape: &Shape, bytes: &[u8], depth: usize) -> Result<Value, Malformed> {
    let mut items = Vec::new();
    let mut reader = Reader::new(bytes);
    while let Some((number, wire)) = reader.next_field()? {
        if let (2, WireValue::Bytes(item)) = (number, wire) {
            items.push(if *shape == Shape::SchemaOrArray {
                schema_props(item, depth)?
            } else {
                text(item)?.into()
            });
        }
    }
    Ok(Value::Array(items))
}

fn text(bytes: &[u8]) -> Result<String, Malformed> {
    std::str::from_utf8(bytes)
        .map(str::to_owned)
        .map_err(|_| Malformed)
}
