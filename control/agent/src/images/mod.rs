//! Images on disk: a content-addressed store that the nodes of one machine and `meshgate image load` share.
//!
//! ```text
//! index.json           names → manifest, configuration, layers; replaced whole, the one commit point
//! configs/HEX.json     configurations by digest
//! layers/HEX           unpacked layers by the digest of their uncompressed tar (cut), in overlayfs' own form
//! layers/self-HEX      the content of `meshgate/meshgate`, made from the running binary
//! lock                 writers hold it; readers need none
//! tmp/                 half-done work; emptied by the next writer
//! ```
//! Deliberately absent: pulling from registries. An image that is not here is reported, and what it takes.

mod archive;
mod error;
mod index;
mod load;
mod own;
mod reference;
mod unpack;
mod watch;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub(crate) use archive::architecture;
pub use error::ImageError;
pub use index::ImageConfig;
use index::{Entry, Index};
pub use own::OwnImage;
pub use reference::{BadReference, Reference, Version};
pub use watch::watch_index;

/// The store of images in one folder. Cheap to clone.
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

/// An image that containers can be made from.
#[derive(Debug, Clone)]
pub struct Image {
    /// `repository@sha256:…`: what container statuses show as `imageID`.
    pub id: String,
    /// How its processes start.
    pub config: ImageConfig,
    /// Names of its layers below [`ImageStore::layers_dir`], lowest first.
    pub layers: Vec<String>,
}

impl ImageStore {
    /// Opens the store in `dir`, making it where it is missing.
    pub fn open(dir: &Path) -> Result<ImageStore, ImageError> {
        let store = ImageStore {
            dir: dir.to_owned(),
        };
        for folder in [
            store.dir.clone(),
            store.layers_dir(),
            store.configs_dir(),
            store.tmp_dir(),
        ] {
            std::fs::create_dir_all(&folder).map_err(ImageError::file("creating", &folder))?;
        }
        Ok(store)
    }

    /// Loads an OCI layout (folder), an OCI archive or a `docker save` archive; returns the names it got. All or
    /// nothing: after an error the store is as it was.
    pub fn load(&self, file: &Path) -> Result<Vec<ImageSummary>, ImageError> {
        load::load(self, file)
    }

    /// All named images, by name.
    pub fn list(&self) -> Result<Vec<ImageSummary>, ImageError> {
        let index = Index::read(&self.index_path())?;
        let mut images = BTreeMap::new();
        for entry in &index.images {
            for name in &entry.names {
                images.insert(name.clone(), entry.summary(name));
            }
        }
        Ok(images.into_values().collect())
    }

    /// The image that `reference` names, if it is here. The own image is not looked for: see [`OwnImage`].
    pub fn find(&self, reference: &Reference) -> Result<Option<Image>, ImageError> {
        let index = Index::read(&self.index_path())?;
        let Some(entry) = index.find(reference) else {
            return Ok(None);
        };
        Ok(Some(Image {
            id: reference.at(&entry.digest),
            config: ImageConfig::read(&self.config_path(&entry.config))?,
            layers: entry.layers.clone(),
        }))
    }

    /// Where layers are.
    pub fn layers_dir(&self) -> PathBuf {
        self.dir.join("layers")
    }

    fn configs_dir(&self) -> PathBuf {
        self.dir.join("configs")
    }

    fn config_path(&self, digest: &str) -> PathBuf {
        let hex = digest.trim_start_matches("sha256:");
        self.configs_dir().join(format!("{hex}.json"))
    }

    fn tmp_dir(&self) -> PathBuf {
        self.dir.join("tmp")
    }

    fn index_path(&self) -> PathBuf {
        self.dir.join(index::FILE)
    }

    fn lock_path(&self) -> PathBuf {
        self.dir.join("lock")
    }
}

impl Entry {
    fn summary(&self, name: &str) -> ImageSummary {
        ImageSummary {
            name: name.to_owned(),
            digest: self.digest.clone(),
            size: self.size,
        }
    }
}

/// Lower-case hexadecimal.
fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests;
