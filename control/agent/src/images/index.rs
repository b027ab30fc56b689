//! The store's index and the parts of an image's configuration that a container needs.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{ImageError, Reference, Version};

pub(super) const FILE: &str = "index.json";

/// Everything the store holds.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Index {
    pub(super) images: Vec<Entry>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Entry {
    /// Complete names; may be empty after they moved to a newer image.
    pub(super) names: Vec<String>,
    /// Digest of the manifest.
    pub(super) digest: String,
    /// Digest of the configuration.
    pub(super) config: String,
    /// Folders below `layers`, lowest first.
    pub(super) layers: Vec<String>,
    /// Bytes of the unpacked layers.
    pub(super) size: u64,
}

impl Index {
    pub(super) fn read(path: &Path) -> Result<Index, ImageError> {
        match std::fs::read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|source| ImageError::Document {
                kind: "index of an image store",
                path: path.to_owned(),
                source,
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Index::default()),
            Err(error) => Err(ImageError::file("reading", path)(error)),
        }
    }

    /// Replaces the index in one step: readers see the old one or the new one.
    pub(super) fn write(&self, path: &Path, tmp: &Path) -> Result<(), ImageError> {
        let bytes = serde_json::to_vec_pretty(self).map_err(|source| ImageError::Document {
            kind: "index of an image store",
            path: path.to_owned(),
            source,
        })?;
        let mut file = std::fs::File::create(tmp).map_err(ImageError::file("creating", tmp))?;
        file.write_all(&bytes)
            .and_then(|()| file.sync_all())
            .map_err(ImageError::file("writing", tmp))?;
        std::fs::rename(tmp, path).map_err(ImageError::file("replacing", path))
    }

    pub(super) fn find(&self, reference: &Reference) -> Option<&Entry> {
        match &reference.version {
            Version::Tag(_) => {
                let name = reference.to_string();
                self.images.iter().find(|entry| entry.names.contains(&name))
            }
            Version::Digest(digest) => self
                .images
                .iter()
                .find(|entry| entry.digest == *digest || entry.config == *digest),
        }
    }

    /// Adds an image; its names leave those that had them.
    pub(super) fn add(&mut self, new: Entry) {
        for entry in &mut self.images {
            entry.names.retain(|name| !new.names.contains(name));
        }
        match self
            .images
            .iter_mut()
            .find(|entry| entry.digest == new.digest)
        {
            Some(known) => known.names.extend(new.names),
            None => self.images.push(new),
        }
    }
}

/// How an image wants its processes started (`config` of the OCI image configuration).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageConfig {
    /// `NAME=value`.
    #[serde(rename = "Env", deserialize_with = "null_is_empty")]
    pub env: Vec<String>,
    /// What `command` of a container replaces.
    #[serde(rename = "Entrypoint", deserialize_with = "null_is_empty")]
    pub entrypoint: Vec<String>,
    /// What `args` of a container replace.
    #[serde(rename = "Cmd", deserialize_with = "null_is_empty")]
    pub cmd: Vec<String>,
    /// Empty means `/`.
    #[serde(rename = "WorkingDir")]
    pub working_dir: String,
    /// `user`, `uid`, `user:group` or `uid:gid`; empty means root.
    #[serde(rename = "User")]
    pub user: String,
    /// `SIGTERM`, `15`; empty means SIGTERM.
    #[serde(rename = "StopSignal")]
    pub stop_signal: String,
    /// Paths that want to outlive a container's own files.
    #[serde(rename = "Volumes", deserialize_with = "null_is_empty")]
    pub volumes: BTreeMap<String, serde_json::Value>,
}

/// Docker writes `null` where it means nothing.
fn null_is_empty<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// The whole configuration document.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ImageDocument {
    pub(super) config: Option<ImageConfig>,
    pub(super) rootfs: RootFs,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RootFs {
    pub(super) diff_ids: Vec<String>,
}

impl ImageConfig {
    pub(super) fn read(path: &Path) -> Result<ImageConfig, ImageError> {
        let bytes = std::fs::read(path).map_err(ImageError::file("reading", path))?;
        Ok(ImageDocument::parse(&bytes, path)?
            .config
            .unwrap_or_default())
    }
}

impl ImageDocument {
    pub(super) fn parse(bytes: &[u8], path: &Path) -> Result<ImageDocument, ImageError> {
        serde_json::from_slice(bytes).map_err(|source| ImageError::Document {
            kind: "image configuration",
            path: path.to_owned(),
            source,
        })
    }
}
