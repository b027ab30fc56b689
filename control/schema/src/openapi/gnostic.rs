//! The protobuf form of a Swagger document: the message `openapi.v2.Document` of the gnostic project, as far as clients
//! of Kubernetes read it (definitions with their extensions, and which operation is which kind's).

use serde_json::{Map, Value};

use crate::protobuf::{put_bytes, put_int};

/// The whole document.
pub(super) fn document(swagger: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    put_text(&mut out, 1, swagger.get("swagger"));
    let mut info = Vec::new();
    put_text(&mut info, 1, swagger.pointer("/info/title"));
    put_text(&mut info, 2, swagger.pointer("/info/version"));
    put_bytes(&mut out, 2, &info);
    let mut paths = Vec::new();
    for (path, item) in entries(swagger.get("paths")) {
        put_named(&mut paths, 2, path, &path_item(item));
    }
    put_bytes(&mut out, 8, &paths);
    let mut definitions = Vec::new();
    for (name, schema) in entries(swagger.get("definitions")) {
        put_named(&mut definitions, 1, name, &schema_message(schema));
    }
    put_bytes(&mut out, 9, &definitions);
    out
}

fn path_item(item: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    for (method, number) in [
        ("get", 2),
        ("put", 3),
        ("post", 4),
        ("delete", 5),
        ("patch", 8),
    ] {
        if let Some(operation) = item.get(method) {
            put_bytes(&mut out, number, &operation_message(operation));
        }
    }
    out
}

fn operation_message(operation: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    put_texts(&mut out, 1, operation.get("tags"));
    put_text(&mut out, 3, operation.get("description"));
    put_text(&mut out, 5, operation.get("operationId"));
    put_texts(&mut out, 6, operation.get("produces"));
    put_texts(&mut out, 7, operation.get("consumes"));
    for parameter in operation
        .get("parameters")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        if parameter.get("in").and_then(Value::as_str) == Some("query") {
            put_bytes(&mut out, 8, &query_parameter(parameter));
        }
    }
    put_extensions(&mut out, 13, operation);
    out
}

/// ParametersItem { parameter: Parameter { non_body_parameter: NonBodyParameter { query ... } } }
fn query_parameter(parameter: &Value) -> Vec<u8> {
    let mut query = Vec::new();
    put_text(&mut query, 2, parameter.get("in"));
    put_text(&mut query, 4, parameter.get("name"));
    put_text(&mut query, 6, parameter.get("type"));
    [3, 2, 1].into_iter().fold(query, |inner, number| {
        let mut outer = Vec::new();
        put_bytes(&mut outer, number, &inner);
        outer
    })
}

fn schema_message(schema: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    put_text(&mut out, 1, schema.get("$ref"));
    put_text(&mut out, 2, schema.get("format"));
    put_text(&mut out, 4, schema.get("description"));
    if let Some(default) = schema.get("default") {
        put_bytes(&mut out, 5, &any(default));
    }
    put_text(&mut out, 13, schema.get("pattern"));
    put_texts(&mut out, 19, schema.get("required"));
    for value in schema
        .get("enum")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        put_bytes(&mut out, 20, &any(value));
    }
    match schema.get("additionalProperties") {
        Some(Value::Bool(allowed)) => {
            let mut item = Vec::new();
            put_int(&mut item, 2, u64::from(*allowed));
            put_bytes(&mut out, 21, &item);
        }
        Some(inner) => {
            let mut item = Vec::new();
            put_bytes(&mut item, 1, &schema_message(inner));
            put_bytes(&mut out, 21, &item);
        }
        None => {}
    }
    if let Some(kind) = schema.get("type") {
        let mut item = Vec::new();
        put_text(&mut item, 1, Some(kind));
        put_bytes(&mut out, 22, &item);
    }
    if let Some(items) = schema.get("items") {
        let mut item = Vec::new();
        put_bytes(&mut item, 1, &schema_message(items));
        put_bytes(&mut out, 23, &item);
    }
    if let Some(properties) = schema.get("properties") {
        let mut message = Vec::new();
        for (name, property) in entries(Some(properties)) {
            put_named(&mut message, 1, name, &schema_message(property));
        }
        put_bytes(&mut out, 25, &message);
    }
    put_extensions(&mut out, 31, schema);
    out
}

/// The `x-` words, each as a NamedAny.
fn put_extensions(out: &mut Vec<u8>, number: u32, owner: &Value) {
    for (name, value) in entries(Some(owner)).filter(|(name, _)| name.starts_with("x-")) {
        put_named(out, number, name, &any(value));
    }
}

/// Any { yaml }: JSON is YAML.
fn any(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    put_bytes(&mut out, 2, value.to_string().as_bytes());
    out
}

/// A message of a name and a value.
fn put_named(out: &mut Vec<u8>, number: u32, name: &str, value: &[u8]) {
    let mut named = Vec::new();
    put_bytes(&mut named, 1, name.as_bytes());
    put_bytes(&mut named, 2, value);
    put_bytes(out, number, &named);
}

fn put_text(out: &mut Vec<u8>, number: u32, value: Option<&Value>) {
    if let Some(text) = value.and_then(Value::as_str) {
        put_bytes(out, number, text.as_bytes());
    }
}

fn put_texts(out: &mut Vec<u8>, number: u32, value: Option<&Value>) {
    for text in value
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
    {
        put_bytes(out, number, text.as_bytes());
    }
}

fn entries(map: Option<&Value>) -> impl Iterator<Item = (&str, &Value)> {
    let map: Option<&Map<String, Value>> = map.and_then(Value::as_object);
    map.into_iter()
        .flatten()
        .map(|(key, value)| (key.as_str(), value))
}
