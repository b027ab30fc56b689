//! Objects and lists in the shape that was asked for: whole, as a Table, or their metadata only.

use bytes::Bytes;
use http::Response;
use jiff::Timestamp;
use meshgate_schema::{Failure, IncludeObject, Media, TableOptions};
use meshgate_store::Entry;
use serde_json::{Value, json};

use crate::http::answer;
use crate::http::body::Body;
use crate::http::media::Shape;
use crate::objects::{JsonWriter, read, write_value};
use crate::server::{Call, List};

/// An object as stored.
pub(crate) fn stored(call: &Call, entry: &Entry) -> Result<Response<Body>, Failure> {
    if call.format.encoding == Media::Json
        && call.format.shape == Shape::Whole
        && !call.format.pretty
    {
        let mut body = Vec::with_capacity(entry.value.len() + 32);
        JsonWriter::new(&call.kind).object(entry, entry.modified, &mut body)?;
        body.push(b'\n');
        return Ok(answer::bytes(200, call.format.content_type(), body));
    }
    object(call, 200, &read(&call.kind, entry)?)
}

/// An object in its served form.
pub(crate) fn object(call: &Call, code: u16, object: &Value) -> Result<Response<Body>, Failure> {
    let of_kind = object["kind"] == call.kind.kind();
    let shaped = match call.format.shape {
        // A Status or another kind's object (Scale, TokenRequest) is shown as it is.
        Shape::Table if of_kind => {
            let version = &object["metadata"]["resourceVersion"];
            let options = TableOptions {
                include: include(call)?,
                headers: true,
            };
            let metadata = json!({"resourceVersion": version});
            Some(
                call.kind
                    .table(&[object], metadata, Timestamp::now(), options),
            )
        }
        Shape::Metadata if of_kind => Some(metadata_only(object)),
        _ => None,
    };
    Ok(answer::value(
        code,
        call.format,
        &call.registry,
        shaped.as_ref().unwrap_or(object),
    ))
}

/// A page of a list.
pub(crate) fn list(call: &Call, list: &List) -> Result<Response<Body>, Failure> {
    let metadata = list_metadata(list);
    match (call.format.shape, call.format.encoding) {
        (Shape::Whole, Media::Json) if !call.format.pretty => {
            let body = whole_json(call, list, &metadata)?;
            Ok(answer::bytes(200, call.format.content_type(), body))
        }
        (Shape::Whole, _) => {
            let items = objects(call, list)?
                .into_iter()
                .map(|object| item(call, object));
            let value = json!({
                "kind": call.kind.list_kind(),
                "apiVersion": call.kind.api_version(),
                "metadata": metadata,
                "items": items.collect::<Vec<Value>>(),
            });
            Ok(answer::value(200, call.format, &call.registry, &value))
        }
        (Shape::Table, _) => {
            let objects = objects(call, list)?;
            let rows: Vec<&Value> = objects.iter().collect();
            let options = TableOptions {
                include: include(call)?,
                headers: true,
            };
            let table = call.kind.table(&rows, metadata, Timestamp::now(), options);
            Ok(answer::value(200, call.format, &call.registry, &table))
        }
        (Shape::Metadata, _) => {
            let items: Vec<Value> = objects(call, list)?.iter().map(metadata_only).collect();
            let value = json!({
                "kind": "PartialObjectMetadataList",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": metadata,
                "items": items,
            });
            Ok(answer::value(200, call.format, &call.registry, &value))
        }
    }
}

/// What each row of a Table carries of its object.
pub(crate) fn include(call: &Call) -> Result<IncludeObject, Failure> {
    match call.query.find("includeObject") {
        None | Some("Metadata") => Ok(IncludeObject::Metadata),
        Some("None") => Ok(IncludeObject::None),
        Some("Object") => Ok(IncludeObject::Object),
        Some(other) => Err(Failure::bad_request(format!(
            "Invalid value for includeObject: {other:?}: must be one of None, Metadata, Object"
        ))),
    }
}

/// `PartialObjectMetadata` of an object.
pub(crate) fn metadata_only(object: &Value) -> Value {
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": object["metadata"],
    })
}

fn list_metadata(list: &List) -> Value {
    let mut metadata = json!({"resourceVersion": list.revision.to_string()});
    if !list.next.is_empty() {
        metadata["continue"] = list.next.as_str().into();
    }
    if let Some(remaining) = list.remaining {
        metadata["remainingItemCount"] = remaining.into();
    }
    metadata
}

fn objects(call: &Call, list: &List) -> Result<Vec<Value>, Failure> {
    list.entries
        .iter()
        .map(|entry| read(&call.kind, entry))
        .collect()
}

/// Items of built-in lists go without kind and version, as in Kubernetes.
fn item(call: &Call, mut object: Value) -> Value {
    if !call.kind.is_custom()
        && let Some(fields) = object.as_object_mut()
    {
        fields.shift_remove("kind");
        fields.shift_remove("apiVersion");
    }
    object
}

fn whole_json(call: &Call, list: &List, metadata: &Value) -> Result<Bytes, Failure> {
    let stored: usize = list.entries.iter().map(|entry| entry.value.len()).sum();
    let mut body = Vec::with_capacity(stored + 256);
    let kind = format!(
        r#"{{"kind":"{}","apiVersion":"{}","metadata":"#,
        call.kind.list_kind(),
        call.kind.api_version()
    );
    body.extend_from_slice(kind.as_bytes());
    write_value(&mut body, metadata);
    body.extend_from_slice(br#","items":["#);
    let writer = JsonWriter::new(&call.kind);
    for (at, entry) in list.entries.iter().enumerate() {
        if at > 0 {
            body.push(b',');
        }
        writer.item(entry, &mut body)?;
    }
    body.extend_from_slice(b"]}\n");
    Ok(body.into())
}
