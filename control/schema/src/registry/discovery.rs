//! Discovery documents, in the legacy and the aggregated form.

use serde_json::Value;

use super::Registry;

/// Which half of the API an aggregated document describes: `/api` or `/apis`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiscoveryScope {
    Core,
    Groups,
}

/// Version of `apidiscovery.k8s.io` that the client asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AggregatedVersion {
    V2,
    V2Beta1,
}

/// An aggregated document and the entity tag (without quotes) of its content.
#[derive(Debug, Clone)]
pub struct Aggregated {
    pub document: Value,
    pub etag: String,
}

impl Registry {
    /// `GET /api`.
    pub fn api_versions(&self, server_address: &str) -> Value {
        let _ = server_address;
        Value::Null
    }

    /// `GET /apis`.
    pub fn group_list(&self) -> Value {
        Value::Null
    }

    /// `GET /apis/GROUP`.
    pub fn group_document(&self, _group: &str) -> Option<Value> {
        None
    }

    /// `GET /api/v1` or `/apis/GROUP/VERSION`.
    pub fn resource_list(&self, _group: &str, _version: &str) -> Option<Value> {
        None
    }

    /// The whole of `/api` or `/apis` in one `APIGroupDiscoveryList`.
    pub fn aggregated(&self, _scope: DiscoveryScope, _version: AggregatedVersion) -> Aggregated {
        Aggregated {
            document: Value::Null,
            etag: String::new(),
        }
    }
}
