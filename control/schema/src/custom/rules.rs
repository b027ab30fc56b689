//! Where CEL rules (`x-kubernetes-validations`) will be evaluated.

use serde_json::Value;

use super::Schema;
use crate::{FieldError, FieldErrorKind};

/// The causes that the schema's rules find in an object which is otherwise valid. Deliberately none yet: rules are
/// stored and published, and an evaluator goes here.
pub(super) fn check(_object: &Value, _schema: Schema<'_>) -> Vec<FieldError> {
    Vec::new()
}

/// Errors after which rules cannot be evaluated, because the object does not have the types they count on.
pub(super) fn is_blocking(error: &FieldError) -> bool {
    matches!(
        error.kind,
        FieldErrorKind::NotSupported
            | FieldErrorKind::Required
            | FieldErrorKind::TooLong
            | FieldErrorKind::TooMany
            | FieldErrorKind::TypeInvalid
    )
}

/// Says that there were rules and they did not run.
pub(super) fn not_checked() -> FieldError {
    FieldError::invalid(
        "<nil>",
        Value::Null,
        "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation",
    )
}
