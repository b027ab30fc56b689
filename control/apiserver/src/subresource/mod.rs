//! Subresources that carry another kind than their object.

pub(crate) mod binding;
pub(crate) mod eviction;
pub(crate) mod finalize;
pub(crate) mod log;
pub(crate) mod review;
pub(crate) mod scale;
pub(crate) mod token;

use serde_json::{Value, json};

/// The plain "it worked".
pub(crate) fn success() -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201})
}
