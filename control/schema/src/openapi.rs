//! OpenAPI documents.

use serde_json::Value;

use crate::Registry;

impl Registry {
    /// `GET /openapi/v3`: where the documents of each group version are, with their hashes.
    pub fn openapi_v3_index(&self) -> Value {
        Value::Null
    }

    /// The hash in the URL of a document (`api/v1`, `apis/apps/v1`), without building it.
    pub fn openapi_v3_hash(&self, _path: &str) -> Option<String> {
        None
    }

    /// A document as JSON, built when asked for.
    pub fn openapi_v3(&self, _path: &str) -> Option<Vec<u8>> {
        None
    }

    /// `GET /openapi/v2` as JSON.
    pub fn openapi_v2(&self) -> Vec<u8> {
        Vec::new()
    }

    /// `GET /openapi/v2` as the protobuf message `openapi.v2.Document`.
    pub fn openapi_v2_protobuf(&self) -> Vec<u8> {
        Vec::new()
    }
}
