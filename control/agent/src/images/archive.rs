//! The three forms images come in, read as one: a folder with documents and blobs, and the images found in it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;

use super::ImageError;
use super::load::{digest_of, read_document};

/// Entries of an archive; more are no image.
const ENTRIES_MAX: usize = 100_000;
/// Indexes within indexes.
const INDEX_DEPTH_MAX: usize = 4;

/// A folder that holds images, as it was given or unpacked from an archive.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) dir: PathBuf,
    /// What images without a name are called.
    stem: String,
}

/// An image of a layout.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) names: Vec<String>,
    /// Of its manifest; `docker save` archives of old have none.
    pub(super) digest: Option<String>,
    pub(super) config: Blob,
    pub(super) layers: Vec<Blob>,
}

/// A file of a layout.
#[derive(Debug)]
pub(super) struct Blob {
    pub(super) path: String,
    /// What its content must be; old archives do not say.
    digest: Option<String>,
}

impl Blob {
    pub(super) fn check(&self, what: &str, found: &str) -> Result<(), ImageError> {
        match &self.digest {
            Some(wanted) if wanted != found => Err(ImageError::Digest {
                what: format!("{what} ({})", self.path),
                wanted: wanted.clone(),
                found: found.to_owned(),
            }),
            _ => Ok(()),
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct OciIndex {
    manifests: Vec<Descriptor>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct OciManifest {
    config: Descriptor,
    layers: Vec<Descriptor>,
}

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Descriptor {
    media_type: String,
    digest: String,
    annotations: BTreeMap<String, String>,
    platform: Option<Platform>,
}

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default)]
struct Platform {
    os: String,
    architecture: String,
}

/// An image in `manifest.json` of `docker save`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// The architecture in the words of images.
pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Opens what was given; archives are unpacked into `tmp`.
pub(super) fn open(file: &Path, tmp: &Path) -> Result<Layout, ImageError> {
    let meta = fs::metadata(file).map_err(ImageError::file("opening", file))?;
    let stem = stem(file);
    if meta.is_dir() {
        return Ok(Layout {
            dir: file.to_owned(),
            stem,
        });
    }
    let dir = tmp.join("archive");
    fs::create_dir(&dir).map_err(ImageError::file("creating", &dir))?;
    let opened = File::open(file).map_err(ImageError::file("opening", file))?;
    let plain = decompressed(BufReader::with_capacity(1 << 16, opened))
        .map_err(ImageError::file("reading", file))?;
    unpack_files(plain, &dir).map_err(|error| match error.kind() {
        // An archive that ends early, or no archive at all.
        io::ErrorKind::Other
        | io::ErrorKind::UnexpectedEof
        | io::ErrorKind::InvalidData
        | io::ErrorKind::InvalidInput => {
            ImageError::no_image(file, format!("not an image archive ({error})"))
        }
        _ => ImageError::file("unpacking", file)(error),
    })?;
    Ok(Layout { dir, stem })
}

/// `shop.tar.gz` → `shop`, only with characters that names may have.
fn stem(file: &Path) -> String {
    let name = file
        .file_name()
        .map(|name| name.to_string_lossy().to_lowercase())
        .unwrap_or_default();
    let stem: String = name
        .split('.')
        .next()
        .unwrap_or_default()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect();
    match stem.trim_matches('-') {
        "" => "image".to_owned(),
        stem => stem.to_owned(),
    }
}

/// Files and links of an archive, and nothing else, into `dir`.
fn unpack_files(reader: impl Read, dir: &Path) -> io::Result<()> {
    let mut archive = tar::Archive::new(reader);
    for (count, entry) in archive.entries()?.enumerate() {
        if count >= ENTRIES_MAX {
            return Err(io::Error::other("more than 100000 entries"));
        }
        let mut entry = entry?;
        let Some(path) = inside(&entry.path()?) else {
            return Err(io::Error::other(format!(
                "entry {:?} leads outside",
                entry.path()?.display()
            )));
        };
        let target = dir.join(&path);
        match entry.header().entry_type() {
            tar::EntryType::Regular | tar::EntryType::Continuous => {
                if let Some(parent) = target.parent() {
                    fs::create_dir_all(parent)?;
                }
                // `create_new` follows no link, so an entry cannot be written through an earlier one.
                let mut file = File::options().write(true).create_new(true).open(&target)?;
                io::copy(&mut entry, &mut file)?;
            }
            // Old archives link a layer that several images share.
            tar::EntryType::Symlink | tar::EntryType::Link => {
                let link = entry.link_name()?.unwrap_or_default().into_owned();
                let from = match entry.header().entry_type() {
                    tar::EntryType::Symlink => path.parent().map(|parent| parent.join(&link)),
                    _ => Some(link),
                };
                let source = from.and_then(|from| resolve_dots(&from)).ok_or_else(|| {
                    io::Error::other(format!("link {:?} leads outside", path.display()))
                })?;
                if let Some(parent) = target.parent() {
                    fs::create_dir_all(parent)?;
                }
                let source = dir.join(source);
                // A link to what comes later is left out; who needs it finds the file missing.
                if source.is_file() {
                    fs::hard_link(source, target)?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// The path, if all its parts are plain names.
fn inside(path: &Path) -> Option<PathBuf> {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir | Component::Prefix(_) => return None,
        }
    }
    Some(clean)
}

/// The path with `..` worked out, if it stays inside.
fn resolve_dots(path: &Path) -> Option<PathBuf> {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::CurDir => {}
            Component::ParentDir => {
                if !clean.pop() {
                    return None;
                }
            }
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(clean)
}

/// Reads through gzip or zstd where the content is packed so.
pub(super) fn decompressed<'a>(mut reader: impl BufRead + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let start = reader.fill_buf()?;
    if start.starts_with(&[0x1f, 0x8b]) {
        Ok(Box::new(flate2::bufread::MultiGzDecoder::new(reader)))
    } else if start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        Ok(Box::new(zstd::stream::read::Decoder::with_buffer(reader)?))
    } else {
        Ok(Box::new(reader))
    }
}

impl Layout {
    /// A file of the layout; its name comes from a document and must not lead outside.
    pub(super) fn path(&self, name: &str) -> Result<PathBuf, ImageError> {
        inside(Path::new(name))
            .map(|path| self.dir.join(path))
            .ok_or_else(|| {
                ImageError::no_image(&self.dir, format!("the path {name:?} leads outside"))
            })
    }

    /// All images for this machine.
    pub(super) fn images(&self) -> Result<Vec<Found>, ImageError> {
        let saved = self.saved()?;
        if self.dir.join("oci-layout").exists()
            || (saved.is_none() && self.dir.join("index.json").exists())
        {
            return self.oci_images(&saved.unwrap_or_default());
        }
        let Some(saved) = saved else {
            return Err(ImageError::no_image(
                &self.dir,
                "neither an OCI layout (index.json) nor a docker archive (manifest.json)",
            ));
        };
        Ok(saved
            .into_iter()
            .map(|image| self.saved_image(image))
            .collect())
    }

    fn saved(&self) -> Result<Option<Vec<Saved>>, ImageError> {
        let path = self.dir.join("manifest.json");
        if !path.exists() {
            return Ok(None);
        }
        parse(
            &read_document(&path)?,
            &path,
            "manifest of a docker archive",
        )
        .map(Some)
    }

    fn saved_image(&self, image: Saved) -> Found {
        let digest = |path: &str| {
            let hex = path.strip_prefix("blobs/sha256/")?;
            Some(format!("sha256:{hex}")).filter(|digest| super::reference::is_digest(digest))
        };
        let blob = |path: String| Blob {
            digest: digest(&path),
            path,
        };
        let names = image.repo_tags.unwrap_or_default();
        Found {
            names: if names.is_empty() {
                vec![self.stem.clone()]
            } else {
                names
            },
            digest: None,
            config: blob(image.config),
            layers: image.layers.into_iter().map(blob).collect(),
        }
    }

    fn oci_images(&self, saved: &[Saved]) -> Result<Vec<Found>, ImageError> {
        let path = self.dir.join("index.json");
        let index: OciIndex = parse(&read_document(&path)?, &path, "OCI index")?;
        let mut found = Vec::new();
        for descriptor in &index.manifests {
            let Some((digest, manifest)) = self.manifest(descriptor, INDEX_DEPTH_MAX)? else {
                continue;
            };
            let config_path = blob_path(&manifest.config.digest);
            let mut names: Vec<String> = saved
                .iter()
                .filter(|image| image.config == config_path)
                .flat_map(|image| image.repo_tags.iter().flatten().cloned())
                .collect();
            if names.is_empty() {
                names.push(self.annotated_name(&descriptor.annotations));
            }
            found.push(Found {
                names,
                digest: Some(digest),
                config: blob(&manifest.config),
                layers: manifest.layers.iter().map(blob).collect(),
            });
        }
        Ok(found)
    }

    /// Follows indexes to the manifest for this machine; `None` when there is none.
    fn manifest(
        &self,
        descriptor: &Descriptor,
        depth: usize,
    ) -> Result<Option<(String, OciManifest)>, ImageError> {
        if depth == 0 || !descriptor.fits() || !super::reference::is_digest(&descriptor.digest) {
            return Ok(None);
        }
        let path = self.path(&blob_path(&descriptor.digest))?;
        let bytes = read_document(&path)?;
        blob(descriptor).check("a manifest", &digest_of(&bytes))?;
        if descriptor.is_index() {
            let index: OciIndex = parse(&bytes, &path, "OCI index")?;
            for inner in &index.manifests {
                if let Some(found) = self.manifest(inner, depth - 1)? {
                    return Ok(Some(found));
                }
            }
            return Ok(None);
        }
        let manifest: OciManifest = parse(&bytes, &path, "OCI manifest")?;
        for inner in manifest.layers.iter().chain([&manifest.config]) {
            if !super::reference::is_digest(&inner.digest) {
                return Err(ImageError::no_image(
                    &path,
                    format!("{:?} is not a digest", inner.digest),
                ));
            }
        }
        Ok(Some((descriptor.digest.clone(), manifest)))
    }

    /// containerd and docker write the whole name, others only a tag.
    fn annotated_name(&self, annotations: &BTreeMap<String, String>) -> String {
        if let Some(name) = annotations.get("io.containerd.image.name") {
            return name.clone();
        }
        match annotations.get("org.opencontainers.image.ref.name") {
            Some(name) if name.contains(['/', ':']) => name.clone(),
            Some(tag) => format!("{}:{tag}", self.stem),
            None => self.stem.clone(),
        }
    }
}

impl Descriptor {
    fn is_index(&self) -> bool {
        matches!(
            self.media_type.as_str(),
            "application/vnd.oci.image.index.v1+json"
                | "application/vnd.docker.distribution.manifest.list.v2+json"
        )
    }

    /// Attestations and images of other machines do not.
    fn fits(&self) -> bool {
        self.platform.as_ref().is_none_or(|platform| {
            platform.os == "linux" && platform.architecture == architecture()
        })
    }
}

fn blob(descriptor: &Descriptor) -> Blob {
    Blob {
        path: blob_path(&descriptor.digest),
        digest: Some(descriptor.digest.clone()),
    }
}

fn blob_path(digest: &str) -> String {
    format!("blobs/{}", digest.replacen(':', "/", 1))
}

fn parse<T: for<'de> Deserialize<'de>>(
    bytes: &[u8],
    path: &Path,
    kind: &'static str,
) -> Result<T, ImageError> {
    serde_json::from_slice(bytes).map_err(|source| ImageError::Document {
        kind,
        path: path.to_owned(),
        source,
    })
}
