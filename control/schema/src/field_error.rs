//! One cause of a 422: the field, what is wrong with it, and the value found.

use std::fmt;

use serde_json::{Value, json};

/// What kind of wrong a field is; decides the wording and the machine-readable reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldErrorKind {
    NotFound,
    Required,
    Duplicate,
    Invalid,
    NotSupported,
    Forbidden,
    TooLong,
    TooMany,
    Internal,
    TypeInvalid,
}

/// One cause of a 422.
#[derive(Debug, Clone, PartialEq)]
pub struct FieldError {
    pub kind: FieldErrorKind,
    /// Path as users write it: `spec.containers[0].name`.
    pub field: String,
    pub detail: String,
    /// The value found; Null where the wording does not show one.
    pub value: Value,
}

impl FieldError {
    fn new(
        kind: FieldErrorKind,
        field: impl fmt::Display,
        value: Value,
        detail: impl Into<String>,
    ) -> FieldError {
        FieldError {
            kind,
            field: field.to_string(),
            detail: detail.into(),
            value,
        }
    }

    /// A value must be there.
    pub fn required(field: impl fmt::Display, detail: impl Into<String>) -> FieldError {
        FieldError::new(FieldErrorKind::Required, field, Value::Null, detail)
    }

    /// The value is malformed or out of range.
    pub fn invalid(
        field: impl fmt::Display,
        value: impl Into<Value>,
        detail: impl Into<String>,
    ) -> FieldError {
        FieldError::new(FieldErrorKind::Invalid, field, value.into(), detail)
    }

    /// The value has another type than the schema's; `found` names the type that was found.
    pub fn type_invalid(
        field: impl fmt::Display,
        found: impl Into<Value>,
        detail: impl Into<String>,
    ) -> FieldError {
        FieldError::new(FieldErrorKind::TypeInvalid, field, found.into(), detail)
    }

    /// The value is not one of a closed set.
    pub fn not_supported(
        field: impl fmt::Display,
        value: impl Into<Value>,
        supported: &[&str],
    ) -> FieldError {
        let list: Vec<String> = supported.iter().map(|word| format!("{word:?}")).collect();
        let detail = if list.is_empty() {
            String::new()
        } else {
            format!("supported values: {}", list.join(", "))
        };
        FieldError::new(FieldErrorKind::NotSupported, field, value.into(), detail)
    }

    /// The value must not be there.
    pub fn forbidden(field: impl fmt::Display, detail: impl Into<String>) -> FieldError {
        FieldError::new(FieldErrorKind::Forbidden, field, Value::Null, detail)
    }

    /// The value occurs twice.
    pub fn duplicate(field: impl fmt::Display, value: impl Into<Value>) -> FieldError {
        FieldError::new(FieldErrorKind::Duplicate, field, value.into(), "")
    }

    /// The text is longer than `bytes_max`.
    pub fn too_long(field: impl fmt::Display, bytes_max: usize) -> FieldError {
        let detail = format!("may not be more than {bytes_max} bytes");
        FieldError::new(FieldErrorKind::TooLong, field, Value::Null, detail)
    }

    /// The list has more than `items_max` items.
    pub fn too_many(field: impl fmt::Display, items: usize, items_max: usize) -> FieldError {
        let detail = format!("must have at most {items_max} items");
        FieldError::new(FieldErrorKind::TooMany, field, items.into(), detail)
    }

    /// The field refers to something that is not there.
    pub fn not_found(field: impl fmt::Display, value: impl Into<Value>) -> FieldError {
        FieldError::new(FieldErrorKind::NotFound, field, value.into(), "")
    }

    /// The entry of `details.causes`.
    pub fn cause(&self) -> Value {
        let reason = match self.kind {
            FieldErrorKind::NotFound => "FieldValueNotFound",
            FieldErrorKind::Required => "FieldValueRequired",
            FieldErrorKind::Duplicate => "FieldValueDuplicate",
            FieldErrorKind::Invalid => "FieldValueInvalid",
            FieldErrorKind::NotSupported => "FieldValueNotSupported",
            FieldErrorKind::Forbidden => "FieldValueForbidden",
            FieldErrorKind::TooLong => "FieldValueTooLong",
            FieldErrorKind::TooMany => "FieldValueTooMany",
            FieldErrorKind::Internal => "InternalError",
            FieldErrorKind::TypeInvalid => "FieldValueTypeInvalid",
        };
        json!({"reason": reason, "message": self.body(), "field": self.field})
    }

    /// The wording without the field's path.
    fn body(&self) -> String {
        let label = match self.kind {
            FieldErrorKind::NotFound => "Not found",
            FieldErrorKind::Required => "Required value",
            FieldErrorKind::Duplicate => "Duplicate value",
            FieldErrorKind::Invalid | FieldErrorKind::TypeInvalid => "Invalid value",
            FieldErrorKind::NotSupported => "Unsupported value",
            FieldErrorKind::Forbidden => "Forbidden",
            FieldErrorKind::TooLong => "Too long",
            FieldErrorKind::TooMany => "Too many",
            FieldErrorKind::Internal => "Internal error",
        };
        let mut text = match self.kind {
            FieldErrorKind::Required
            | FieldErrorKind::Forbidden
            | FieldErrorKind::TooLong
            | FieldErrorKind::Internal => label.to_owned(),
            _ => format!("{label}: {}", self.value),
        };
        if !self.detail.is_empty() {
            text.push_str(": ");
            text.push_str(&self.detail);
        }
        text
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.field, self.body())
    }
}
