//! The protobuf form of built-in kinds: `k8s\0`, then a `runtime.Unknown` envelope with the message inside.

mod decode;
mod encode;
mod wire;

use serde_json::Value;

use crate::decode::split_api_version;
use crate::registry::{Registry, Rules};
use crate::types::by_name;

pub(crate) use decode::decode;
use wire::{Reader, WireValue};
pub(crate) use wire::{put_bytes, put_int};

const MAGIC: &[u8; 4] = b"k8s\0";

/// The envelope around a message.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Unknown {
    pub(crate) api_version: String,
    pub(crate) kind: String,
    pub(crate) raw: Vec<u8>,
    pub(crate) content_type: String,
}

/// Opens the envelope; the error is in the real server's words.
pub(crate) fn open(body: &[u8]) -> Result<Unknown, String> {
    let Some(envelope) = body.strip_prefix(MAGIC) else {
        return Err(
            "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]"
                .to_owned(),
        );
    };
    read_envelope(envelope).map_err(|malformed| malformed.to_string())
}

fn read_envelope(bytes: &[u8]) -> Result<Unknown, wire::Malformed> {
    let mut unknown = Unknown::default();
    let mut reader = Reader::new(bytes);
    while let Some((number, value)) = reader.next_field()? {
        match (number, value) {
            (1, WireValue::Bytes(type_meta)) => {
                let mut fields = Reader::new(type_meta);
                while let Some((number, value)) = fields.next_field()? {
                    match (number, value) {
                        (1, WireValue::Bytes(text)) => unknown.api_version = text_of(text)?,
                        (2, WireValue::Bytes(text)) => unknown.kind = text_of(text)?,
                        _ => {}
                    }
                }
            }
            (2, WireValue::Bytes(raw)) => unknown.raw = raw.to_vec(),
            (4, WireValue::Bytes(text)) => unknown.content_type = text_of(text)?,
            _ => {}
        }
    }
    Ok(unknown)
}

fn text_of(bytes: &[u8]) -> Result<String, wire::Malformed> {
    std::str::from_utf8(bytes)
        .map(str::to_owned)
        .map_err(|_| wire::Malformed)
}

impl Registry {
    /// The whole body of a protobuf answer: an object, a list or a Status. None where the kind has no protobuf form
    /// (custom resources, Tables).
    pub fn encode_protobuf(&self, object: &Value) -> Option<Vec<u8>> {
        let api_version = object.get("apiVersion")?.as_str()?;
        let kind = object.get("kind")?.as_str()?;
        let message = self.message_of(api_version, kind, object)?;
        let mut type_meta = Vec::new();
        put_bytes(&mut type_meta, 1, api_version.as_bytes());
        put_bytes(&mut type_meta, 2, kind.as_bytes());
        let mut out = Vec::with_capacity(message.len() + type_meta.len() + 16);
        out.extend_from_slice(MAGIC);
        put_bytes(&mut out, 1, &type_meta);
        put_bytes(&mut out, 2, &message);
        put_bytes(&mut out, 3, b"");
        put_bytes(&mut out, 4, b"");
        Some(out)
    }

    /// A watch event as a frame's content: `{type, object}` where the object is an envelope of its own.
    pub fn encode_watch_event_protobuf(&self, event_type: &str, object: &Value) -> Option<Vec<u8>> {
        let envelope = self.encode_protobuf(object)?;
        let mut raw_extension = Vec::new();
        put_bytes(&mut raw_extension, 1, &envelope);
        let mut out = Vec::new();
        put_bytes(&mut out, 1, event_type.as_bytes());
        put_bytes(&mut out, 2, &raw_extension);
        Some(out)
    }

    fn message_of(&self, api_version: &str, kind: &str, object: &Value) -> Option<Vec<u8>> {
        let (group, version) = split_api_version(api_version);
        if let Some(resource) = self.by_kind(group, version, kind) {
            let Rules::Builtin { type_name, .. } = resource.rules() else {
                return None;
            };
            return Some(encode::encode(by_name(type_name)?, object));
        }
        if let Some(item_kind) = kind.strip_suffix("List")
            && let Some(items) = object.get("items").and_then(Value::as_array)
        {
            return self.list_of(group, version, item_kind, object, items);
        }
        let type_name = crate::decode::type_name_of(group, version, kind)?;
        Some(encode::encode(by_name(&type_name)?, object))
    }

    fn list_of(
        &self,
        group: &str,
        version: &str,
        item_kind: &str,
        object: &Value,
        items: &[Value],
    ) -> Option<Vec<u8>> {
        let type_name = match self
            .by_kind(group, version, item_kind)
            .map(|kind| kind.rules())
        {
            Some(Rules::Builtin { type_name, .. }) => type_name.clone(),
            Some(Rules::Custom(_)) => return None,
            None => crate::decode::type_name_of(group, version, item_kind)?,
        };
        let item_type = by_name(&type_name)?;
        let mut out = Vec::new();
        let list_meta = by_name("io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta")?;
        if let Some(metadata) = object.get("metadata") {
            put_bytes(&mut out, 1, &encode::encode(list_meta, metadata));
        }
        for item in items {
            put_bytes(&mut out, 2, &encode::encode(item_type, item));
        }
        Some(out)
    }
}

#[cfg(test)]
mod tests;
