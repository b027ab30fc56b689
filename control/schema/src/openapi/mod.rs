//! OpenAPI documents, version 3 per group version and version 2 for everything.
//!
//! Structure and descriptions come from k8s-openapi's schemas, merge keys, list types and enums from our own table.
//! Documents are large and rarely asked for: they are built when asked for and nothing of them is kept. Their hashes
//! come from what they are built of, so that the index costs nothing.

mod gnostic;
mod operations;
mod roots;
mod schemas;

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::{Map, Value, json};

use crate::registry::{Kind, Registry, Rules, api_version};

use operations::Dialect;

/// Part of every hash: raise it when the documents of unchanged kinds change, for clients cache them by hash.
const REVISION: u32 = 1;
const VERSION: &str = "v1.36.0";

impl Registry {
    /// `GET /openapi/v3`: where the documents of each group version are, with their hashes.
    pub fn openapi_v3_index(&self) -> Value {
        let paths: Map<String, Value> = self
            .document_paths()
            .into_iter()
            .map(|path| {
                let hash = self.openapi_v3_hash(&path).unwrap_or_default();
                let url = format!("/openapi/v3/{path}?hash={hash}");
                (path, json!({"serverRelativeURL": url}))
            })
            .collect();
        json!({"paths": paths})
    }

    /// The hash in the URL of a document (`api/v1`, `apis/apps/v1`), without building it.
    pub fn openapi_v3_hash(&self, path: &str) -> Option<String> {
        if !self.document_paths().iter().any(|known| known == path) {
            return None;
        }
        let mut hasher = DefaultHasher::new();
        (REVISION, VERSION, path).hash(&mut hasher);
        if let Some((group, version)) = group_version_of(path) {
            for kind in self.kinds_of(group, version) {
                identity_of(kind, &mut hasher);
            }
        }
        Some(format!("{:016X}", hasher.finish()))
    }

    /// A document as JSON, built when asked for.
    pub fn openapi_v3(&self, path: &str) -> Option<Vec<u8>> {
        self.openapi_v3_hash(path)?;
        let (mut paths, mut components) = (Map::new(), BTreeMap::new());
        match group_version_of(path) {
            Some((group, version)) => {
                let kinds: Vec<&Kind> = self.kinds_of(group, version).collect();
                components = schemas::of_kinds(&kinds, Dialect::V3);
                operations::add_paths(&mut paths, &kinds, Dialect::V3);
            }
            None => {
                let get = json!({"get": {"responses": {"200": {"description": "OK"}}}});
                paths.insert(format!("/{path}/"), get);
            }
        }
        let document = json!({
            "openapi": "3.0.0",
            "info": {"title": "Kubernetes", "version": VERSION},
            "paths": paths,
            "components": {"schemas": components},
        });
        Some(document.to_string().into_bytes())
    }

    /// `GET /openapi/v2` as JSON.
    pub fn openapi_v2(&self) -> Vec<u8> {
        self.swagger().to_string().into_bytes()
    }

    /// `GET /openapi/v2` as the protobuf message `openapi.v2.Document`.
    pub fn openapi_v2_protobuf(&self) -> Vec<u8> {
        gnostic::document(&self.swagger())
    }

    fn swagger(&self) -> Value {
        let kinds: Vec<&Kind> = self.kinds().map(|kind| &**kind).collect();
        let mut paths = Map::new();
        operations::add_paths(&mut paths, &kinds, Dialect::V2);
        json!({
            "swagger": "2.0",
            "info": {"title": "Kubernetes", "version": VERSION},
            "paths": paths,
            "definitions": schemas::of_kinds(&kinds, Dialect::V2),
        })
    }

    fn document_paths(&self) -> Vec<String> {
        let mut paths = vec!["api".to_owned(), "apis".to_owned(), "version".to_owned()];
        for group in self.groups() {
            if !group.is_empty() {
                paths.push(format!("apis/{group}"));
            }
            paths.extend(self.versions(group).iter().map(|version| {
                let prefix = if group.is_empty() { "api" } else { "apis" };
                format!("{prefix}/{}", api_version(group, version))
            }));
        }
        paths.sort();
        paths
    }
}

/// Group and version that a document describes; None for those that describe none.
fn group_version_of(path: &str) -> Option<(&str, &str)> {
    if let Some(version) = path.strip_prefix("api/") {
        return Some(("", version));
    }
    path.strip_prefix("apis/")?.split_once('/')
}

fn identity_of(kind: &Kind, hasher: &mut DefaultHasher) {
    (
        kind.kind(),
        kind.plural(),
        kind.namespaced(),
        kind.subresources().len(),
    )
        .hash(hasher);
    if let Rules::Custom(version) = kind.rules() {
        version.schema.to_string().hash(hasher);
    }
}

/// The schema's name: `io.k8s.api.core.v1.Pod`; of custom kinds the reversed group, version and kind.
fn schema_name(kind: &Kind) -> String {
    match kind.rules() {
        Rules::Builtin { type_name, .. } => type_name.clone(),
        Rules::Custom(_) => {
            let reversed: Vec<&str> = kind.group().rsplit('.').collect();
            format!("{}.{}.{}", reversed.join("."), kind.version(), kind.kind())
        }
    }
}

#[cfg(test)]
mod tests;
