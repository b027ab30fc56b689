//! Object metadata.

use serde_json::Value;

use crate::FieldError;
use crate::path::Path;

/// Metadata of an object inside another.
pub(crate) fn validate_embedded(_metadata: &Value, _path: &Path) -> Vec<FieldError> {
    Vec::new()
}
