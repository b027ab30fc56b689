//! Loading: from what people have to entries of the index. Everything is prepared aside; the new index is the commit.

use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use sha2::{Digest, Sha256};

use super::archive::{Found, Layout};
use super::index::{Entry, ImageDocument, Index};
use super::{ImageError, ImageStore, ImageSummary, Reference, archive, hex, unpack};

/// Of a layer's digest, in its folder's name: overlayfs takes all names in one page of options.
const LAYER_NAME_CHARS: usize = 32;
/// A manifest or configuration larger than this is none, in bytes.
pub(super) const DOCUMENT_BYTES_MAX: u64 = 8 << 20;

pub(super) fn load(store: &ImageStore, file: &Path) -> Result<Vec<ImageSummary>, ImageError> {
    let _lock = lock(store)?;
    empty(&store.tmp_dir())?;
    let result = load_locked(store, file);
    // Half-done work is of no use to anybody; the next writer would remove it too.
    let emptied = empty(&store.tmp_dir());
    let loaded = result?;
    emptied?;
    Ok(loaded)
}

fn load_locked(store: &ImageStore, file: &Path) -> Result<Vec<ImageSummary>, ImageError> {
    let layout = archive::open(file, &store.tmp_dir())?;
    let found = layout.images()?;
    if found.is_empty() {
        return Err(ImageError::no_image(
            file,
            format!("holds no image for linux/{}", archive::architecture()),
        ));
    }
    let mut entries = Vec::new();
    for image in &found {
        entries.push(prepare(store, &layout, image)?);
    }
    // Layers must be on disk before an index that names them is.
    let dir = File::open(&store.dir).map_err(ImageError::file("opening", &store.dir))?;
    rustix::fs::syncfs(&dir)
        .map_err(io::Error::from)
        .map_err(ImageError::file("syncing", &store.dir))?;
    let mut index = Index::read(&store.index_path())?;
    let mut loaded = Vec::new();
    for entry in entries {
        loaded.extend(entry.names.iter().map(|name| entry.summary(name)));
        index.add(entry);
    }
    index.write(&store.index_path(), &store.tmp_dir().join("index.json"))?;
    Ok(loaded)
}

/// Brings configuration and layers of one image into the store, under names that say their content.
fn prepare(store: &ImageStore, layout: &Layout, image: &Found) -> Result<Entry, ImageError> {
    let names = image
        .names
        .iter()
        .map(|name| Reference::parse(name).map(|reference| reference.to_string()))
        .collect::<Result<Vec<_>, _>>()?;
    let config_path = layout.path(&image.config.path)?;
    let bytes = read_document(&config_path)?;
    let config = digest_of(&bytes);
    image.config.check("the image configuration", &config)?;
    let document = ImageDocument::parse(&bytes, &config_path)?;
    if document.rootfs.diff_ids.len() != image.layers.len() {
        return Err(ImageError::no_image(
            &config_path,
            format!(
                "names {} layers, the manifest {}",
                document.rootfs.diff_ids.len(),
                image.layers.len()
            ),
        ));
    }
    let mut layers = Vec::new();
    let mut size = 0;
    for (blob, diff_id) in image.layers.iter().zip(&document.rootfs.diff_ids) {
        let (name, bytes) = prepare_layer(store, layout, blob, diff_id)?;
        layers.push(name);
        size += bytes;
    }
    let target = store.config_path(&config);
    let half = store.tmp_dir().join("config.json");
    fs::write(&half, &bytes).map_err(ImageError::file("writing", &half))?;
    fs::rename(&half, &target).map_err(ImageError::file("moving", &target))?;
    Ok(Entry {
        names,
        digest: image.digest.clone().unwrap_or_else(|| config.clone()),
        config,
        layers,
        size,
    })
}

fn prepare_layer(
    store: &ImageStore,
    layout: &Layout,
    blob: &archive::Blob,
    diff_id: &str,
) -> Result<(String, u64), ImageError> {
    if !super::reference::is_digest(diff_id) {
        return Err(ImageError::no_image(
            &layout.dir,
            format!("{diff_id:?} is not the digest of a layer"),
        ));
    }
    let name = diff_id["sha256:".len()..][..LAYER_NAME_CHARS].to_owned();
    let target = store.layers_dir().join(&name);
    if target.exists() {
        let size = tree_bytes(&target).map_err(ImageError::file("reading", &target))?;
        return Ok((name, size));
    }
    let path = layout.path(&blob.path)?;
    let half = store.tmp_dir().join(format!("layer-{name}"));
    remove_tree(&half)?;
    fs::create_dir(&half).map_err(ImageError::file("creating", &half))?;
    let file = File::open(&path).map_err(ImageError::file("opening layer", &path))?;
    let mut packed = Hashing::new(file);
    let unpacked_digest = {
        let plain = archive::decompressed(BufReader::with_capacity(1 << 16, &mut packed))
            .map_err(ImageError::file("reading layer", &path))?;
        let mut plain = Hashing::new(plain);
        unpack::unpack(&mut plain, &half, diff_id)?;
        // What follows the last entry counts for the digest too.
        io::copy(&mut plain, &mut io::sink()).map_err(ImageError::file("reading layer", &path))?;
        plain.digest()
    };
    io::copy(&mut packed, &mut io::sink()).map_err(ImageError::file("reading layer", &path))?;
    blob.check("a layer", &packed.digest())?;
    if unpacked_digest != diff_id {
        return Err(ImageError::Digest {
            what: "a layer's content".to_owned(),
            wanted: diff_id.to_owned(),
            found: unpacked_digest,
        });
    }
    let size = tree_bytes(&half).map_err(ImageError::file("reading", &half))?;
    fs::rename(&half, &target).map_err(ImageError::file("moving", &target))?;
    Ok((name, size))
}

/// Waits for other writers. The lock ends with the file, also when its holder dies.
pub(super) fn lock(store: &ImageStore) -> Result<File, ImageError> {
    let path = store.lock_path();
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(ImageError::file("opening", &path))?;
    flock(&file, FlockOperation::LockExclusive)
        .map_err(io::Error::from)
        .map_err(ImageError::file("locking", &path))?;
    Ok(file)
}

fn empty(dir: &Path) -> Result<(), ImageError> {
    for entry in fs::read_dir(dir).map_err(ImageError::file("reading", dir))? {
        let path = entry.map_err(ImageError::file("reading", dir))?.path();
        remove_tree(&path)?;
    }
    Ok(())
}

pub(super) fn remove_tree(path: &Path) -> Result<(), ImageError> {
    let removed = match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(ImageError::file("removing", path)(error))
        }
        _ => Ok(()),
    }
}

fn tree_bytes(dir: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    let mut todo: Vec<PathBuf> = vec![dir.to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let meta = entry.metadata()?;
            if meta.is_dir() {
                todo.push(entry.path());
            } else {
                bytes += meta.len();
            }
        }
    }
    Ok(bytes)
}

/// Reads a small document; a large one is refused before it is in memory.
pub(super) fn read_document(path: &Path) -> Result<Vec<u8>, ImageError> {
    let file = File::open(path).map_err(ImageError::file("opening", path))?;
    let mut bytes = Vec::new();
    file.take(DOCUMENT_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(ImageError::file("reading", path))?;
    if bytes.len() as u64 > DOCUMENT_BYTES_MAX {
        return Err(ImageError::no_image(
            path,
            format!("a document of more than {DOCUMENT_BYTES_MAX} bytes"),
        ));
    }
    Ok(bytes)
}

pub(super) fn digest_of(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(&Sha256::digest(bytes)))
}

/// Computes the digest of what is read through it.
struct Hashing<R> {
    inner: R,
    hasher: Sha256,
}

impl<R> Hashing<R> {
    fn new(inner: R) -> Self {
        Self {
            inner,
            hasher: Sha256::new(),
        }
    }

    fn digest(&self) -> String {
        format!("sha256:{}", hex(&self.hasher.clone().finalize()))
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        Ok(read)
    }
}
