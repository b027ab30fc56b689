//! From a request body to an object.

use serde_json::Value;

use crate::{Failure, FieldError, Kind, Registry};

/// How a body is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Media {
    Json,
    Yaml,
    Protobuf,
}

/// What happens to unknown and duplicate fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldValidation {
    Ignore,
    Warn,
    Strict,
}

/// How a PATCH body is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatchType {
    Json,
    Merge,
    Strategic,
}

/// An object and the warnings that its writing earned (texts, without the `299 - ` frame).
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    pub object: Value,
    pub warnings: Vec<String>,
}

impl FieldValidation {
    /// The query parameter `fieldValidation`; Warn when it is missing.
    pub fn parse(parameter: Option<&str>) -> Result<FieldValidation, Failure> {
        match parameter {
            None | Some("" | "Warn") => Ok(FieldValidation::Warn),
            Some("Ignore") => Ok(FieldValidation::Ignore),
            Some("Strict") => Ok(FieldValidation::Strict),
            Some(other) => Err(Failure::bad_request(format!("fieldValidation {other:?}"))),
        }
    }
}

impl Kind {
    pub fn decode(
        &self,
        _registry: &Registry,
        _body: &[u8],
        _media: Media,
        _validation: FieldValidation,
    ) -> Result<Decoded, Failure> {
        Err(Failure::internal("not built"))
    }

    pub fn decode_value(
        &self,
        _object: Value,
        _validation: FieldValidation,
    ) -> Result<Decoded, Failure> {
        Err(Failure::internal("not built"))
    }

    pub fn patch(
        &self,
        _registry: &Registry,
        _patch_type: PatchType,
        _current: &Value,
        _patch: &[u8],
        _validation: FieldValidation,
    ) -> Result<Decoded, Failure> {
        Err(Failure::internal("not built"))
    }

    pub fn default(&self, _object: &mut Value) {}

    pub fn prepare_create(&self, _object: &mut Value) {}

    pub fn prepare_update(&self, _new: &mut Value, _old: &Value) {}

    pub fn prepare_status_update(&self, _new: &mut Value, _old: &Value) {}

    pub fn validate_create(&self, _object: &Value) -> Vec<FieldError> {
        Vec::new()
    }

    pub fn validate_update(&self, _new: &Value, _old: &Value) -> Vec<FieldError> {
        Vec::new()
    }

    pub fn validate_status_update(&self, _new: &Value, _old: &Value) -> Vec<FieldError> {
        Vec::new()
    }

    pub fn has_generation(&self) -> bool {
        false
    }

    pub fn generation_changes(&self, _new: &Value, _old: &Value) -> bool {
        false
    }

    pub fn object_warnings(&self, _object: &Value) -> Vec<String> {
        Vec::new()
    }

    pub fn to_storage(&self, object: Value) -> Value {
        object
    }

    pub fn from_storage(&self, object: Value) -> Value {
        object
    }

    pub fn field_selectable(&self, _path: &str) -> bool {
        false
    }

    pub fn field_value(&self, _object: &Value, _path: &str) -> String {
        String::new()
    }

    /// The `Scale` object of an object with the scale subresource.
    pub fn scale_of(&self, _object: &Value) -> Option<Value> {
        None
    }

    /// The object with the replicas of a written `Scale`.
    pub fn with_scale(&self, _object: &Value, _scale: &Value) -> Option<Value> {
        None
    }
}

impl Registry {
    pub fn encode_protobuf(&self, _object: &Value) -> Option<Vec<u8>> {
        None
    }

    pub fn decode_any(
        &self,
        _group: &str,
        _version: &str,
        _kind: &str,
        _body: &[u8],
        _media: Media,
        _validation: FieldValidation,
    ) -> Result<Decoded, Failure> {
        Err(Failure::internal("not built"))
    }
}
