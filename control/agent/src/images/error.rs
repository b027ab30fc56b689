//! What can go wrong with images, said so that somebody can act.

use std::io;
use std::path::{Path, PathBuf};

/// Why the store could not do as told.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// A file or folder, of the store or of the image that is loaded.
    #[error("{step} {}", path.display())]
    File {
        /// What was tried.
        step: &'static str,
        /// With what.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A JSON document of an image cannot be read.
    #[error("{} is not a valid {kind}", path.display())]
    Document {
        /// Which document.
        kind: &'static str,
        /// Where it is.
        path: PathBuf,
        /// Where it is wrong.
        #[source]
        source: serde_json::Error,
    },
    /// What was given holds no image.
    #[error("{}: {why}", path.display())]
    NoImage {
        /// What was given.
        path: PathBuf,
        /// What it is instead.
        why: String,
    },
    /// Content is not what its digest says.
    #[error("{what} is damaged: its digest is {found}, {wanted} was expected")]
    Digest {
        /// Layer, manifest or configuration.
        what: String,
        /// As named.
        wanted: String,
        /// As computed.
        found: String,
    },
    /// A layer holds an entry that must not be unpacked.
    #[error("layer {layer}: entry {entry:?} {why}")]
    Entry {
        /// Digest of the layer.
        layer: String,
        /// Path in the layer.
        entry: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// An entry of a layer could not be written.
    #[error("layer {layer}: cannot unpack {entry:?}")]
    Unpack {
        /// Digest of the layer.
        layer: String,
        /// Path in the layer.
        entry: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A name in the archive is none.
    #[error(transparent)]
    Reference(#[from] super::BadReference),
}

impl ImageError {
    pub(super) fn file(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ImageError {
        let path = path.to_owned();
        move |source| ImageError::File { step, path, source }
    }

    pub(super) fn no_image(path: &Path, why: impl Into<String>) -> ImageError {
        ImageError::NoImage {
            path: path.to_owned(),
            why: why.into(),
        }
    }
}
