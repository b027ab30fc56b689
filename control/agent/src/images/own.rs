//! The image `meshgate/meshgate`: the running binary and the few files a process expects around it. In every store,
//! under any tag.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use meshgate_api::names;
use rustix::fs::{FlockOperation, flock};
use sha2::{Digest, Sha256};

use super::{Image, ImageConfig, ImageError, ImageStore, Reference, hex};

/// Layers of own binaries, also of older ones.
const PREFIX: &str = "self-";
/// Where the binary is in its image.
const BINARY: &str = "/meshgate";

const PASSWD: &str = "root:x:0:0:root:/:/meshgate\nmeshgate:x:1337:1337:meshgate:/:/meshgate\nnobody:x:65534:65534:nobody:/:/meshgate\n";
const GROUP: &str = "root:x:0:\nmeshgate:x:1337:\nnobody:x:65534:\n";

/// The own image, made from one binary.
#[derive(Debug, Clone)]
pub struct OwnImage {
    layer: String,
    identity: String,
}

impl OwnImage {
    /// Puts `binary` into the store, unless it is there, and removes older binaries that no container uses.
    pub fn ensure(store: &ImageStore, binary: &Path) -> Result<OwnImage, ImageError> {
        let meta = fs::metadata(binary).map_err(ImageError::file("reading", binary))?;
        // The file's identity, not its content: hashing some hundred megabytes would cost half of a start.
        let mut hasher = Sha256::new();
        for number in [
            meta.dev(),
            meta.ino(),
            meta.size(),
            meta.mtime() as u64,
            meta.mtime_nsec() as u64,
        ] {
            hasher.update(number.to_le_bytes());
        }
        let identity = hex(&hasher.finalize());
        let own = OwnImage {
            layer: format!("{PREFIX}{}", &identity[..32]),
            identity,
        };
        let path = store.layers_dir().join(&own.layer);
        if !path.exists() {
            let lock = super::load::lock(store)?;
            if !path.exists() {
                let half = store.tmp_dir().join(&own.layer);
                super::load::remove_tree(&half)?;
                fill(&half, binary)?;
                fs::rename(&half, &path).map_err(ImageError::file("moving", &half))?;
            }
            drop(lock);
        }
        own.prune(store);
        Ok(own)
    }

    /// Whether `reference` names the own image.
    pub fn is_named(reference: &Reference) -> bool {
        reference.repository.strip_prefix("docker.io/") == Some(names::SELF_IMAGE)
    }

    /// The image.
    pub fn image(&self) -> Image {
        Image {
            id: format!("docker.io/{}@sha256:{}", names::SELF_IMAGE, self.identity),
            config: ImageConfig {
                env: vec!["PATH=/".to_owned()],
                entrypoint: vec![BINARY.to_owned()],
                ..ImageConfig::default()
            },
            layers: vec![self.layer.clone()],
        }
    }

    /// Shims hold a shared lock on each layer they run from: who gets the exclusive one knows it is unused.
    fn prune(&self, store: &ImageStore) {
        let Ok(entries) = fs::read_dir(store.layers_dir()) else {
            return;
        };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            if !name.starts_with(PREFIX) || name == self.layer {
                continue;
            }
            let unused = File::open(entry.path())
                .is_ok_and(|dir| flock(dir, FlockOperation::NonBlockingLockExclusive).is_ok());
            if unused && let Err(error) = fs::remove_dir_all(entry.path()) {
                tracing::debug!(layer = name, %error, "old layer stays");
            }
        }
    }
}

fn fill(dir: &Path, binary: &Path) -> Result<(), ImageError> {
    for folder in ["etc", "tmp", "proc", "sys", "dev", "run", "var"] {
        let folder = dir.join(folder);
        fs::create_dir_all(&folder).map_err(ImageError::file("creating", &folder))?;
    }
    let tmp = dir.join("tmp");
    fs::set_permissions(&tmp, PermissionsExt::from_mode(0o1777))
        .map_err(ImageError::file("opening up", &tmp))?;
    for (name, text) in [("etc/passwd", PASSWD), ("etc/group", GROUP)] {
        let path = dir.join(name);
        fs::write(&path, text).map_err(ImageError::file("writing", &path))?;
    }
    let target = dir.join(BINARY.trim_start_matches('/'));
    // A link costs nothing and shares the page cache with the processes outside. Across file systems, or when the
    // binary's name leads to a newer one by now, only a copy is possible.
    let named = fs::canonicalize(binary)
        .ok()
        .filter(|path| same_file(path, binary));
    if named.is_none_or(|path| fs::hard_link(path, &target).is_err()) {
        fs::copy(binary, &target).map_err(ImageError::file("copying the binary to", &target))?;
    }
    Ok(())
}

fn same_file(one: &Path, other: &Path) -> bool {
    match (fs::metadata(one), fs::metadata(other)) {
        (Ok(one), Ok(other)) => (one.dev(), one.ino()) == (other.dev(), other.ino()),
        _ => false,
    }
}
