//! Where the PKI's files are, how they are read and written, and what can be wrong with them.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::KeyFiles;

/// Largest file of the PKI; a certificate has 1 KiB, a kubeconfig 6.
const FILE_BYTES_MAX: u64 = 256 * 1024;

/// The layout below one data directory.
pub(super) struct Files {
    dir: PathBuf,
}

impl Files {
    pub(super) fn new(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
        }
    }

    pub(super) fn create_directories(&self) -> Result<(), ClusterPkiError> {
        for below in ["pki", "pki/clients", "pki/nodes", "kubeconfigs"] {
            let path = self.dir.join(below);
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&path)
                .map_err(|source| ClusterPkiError::Create { path, source })?;
        }
        Ok(())
    }

    pub(super) fn pair(&self, name: &str) -> KeyFiles {
        let pki = self.dir.join("pki");
        KeyFiles {
            cert: pki.join(format!("{name}.crt")),
            key: pki.join(format!("{name}.key")),
        }
    }

    pub(super) fn admin_kubeconfig(&self) -> PathBuf {
        self.dir.join("kubeconfig")
    }

    pub(super) fn kubeconfig(&self, name: &str) -> PathBuf {
        self.dir
            .join("kubeconfigs")
            .join(format!("{name}.kubeconfig"))
    }

    /// Names of the nodes that have a serving certificate, sorted.
    pub(super) fn nodes(&self) -> Result<Vec<String>, ClusterPkiError> {
        let path = self.dir.join("pki/nodes");
        let entries = fs::read_dir(&path).map_err(|source| ClusterPkiError::Read {
            path: path.clone(),
            source,
        })?;
        let mut names: Vec<String> = entries
            .filter_map(|entry| {
                let name = entry.ok()?.file_name().into_string().ok()?;
                let name = name.strip_suffix(".crt")?;
                (!name.ends_with("-client")).then(|| name.to_owned())
            })
            .collect();
        names.sort_by_key(|name| (name.len(), name.clone()));
        Ok(names)
    }
}

/// Reads a file that must exist.
pub(super) fn read(path: &Path) -> Result<String, ClusterPkiError> {
    match read_if_there(path)? {
        Some(text) => Ok(text),
        None => Err(ClusterPkiError::Read {
            path: path.to_owned(),
            source: io::ErrorKind::NotFound.into(),
        }),
    }
}

/// `None` when the file does not exist, or is empty: a crash between creating and filling it leaves that.
pub(super) fn read_if_there(path: &Path) -> Result<Option<String>, ClusterPkiError> {
    let failed = |source| ClusterPkiError::Read {
        path: path.to_owned(),
        source,
    };
    match fs::metadata(path) {
        Ok(found) if found.len() > FILE_BYTES_MAX => {
            Err(ClusterPkiError::damaged(path, "far too large"))
        }
        Ok(found) if found.len() == 0 => Ok(None),
        Ok(_) => fs::read_to_string(path).map(Some).map_err(failed),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(error)),
    }
}

/// Whether a file must be on the disk before the next step: only the CA's key. Its certificate is made again from it,
/// everything else is made anew; each of the first start's 25 waits for the disk would take milliseconds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Keep {
    ForGood,
    Renewable,
}

/// Writes whole or not at all, readable by the owner only.
pub(super) fn write(path: &Path, text: &str, keep: Keep) -> Result<(), ClusterPkiError> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = PathBuf::from(temporary);
    let attempt = || -> io::Result<()> {
        // A leftover of a crash may have another mode.
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(text.as_bytes())?;
        if keep == Keep::ForGood {
            file.sync_all()?;
        }
        fs::rename(&temporary, path)
    };
    attempt().map_err(|source| ClusterPkiError::Write {
        path: path.to_owned(),
        source,
    })
}

pub(super) fn write_if_changed(path: &Path, text: &str) -> Result<(), ClusterPkiError> {
    if let Ok(Some(found)) = read_if_there(path)
        && found == text
    {
        return Ok(());
    }
    write(path, text, Keep::Renewable)
}

/// Why the cluster's PKI is not complete. Each names the file and, where there is one, the remedy.
#[derive(Debug, thiserror::Error)]
pub enum ClusterPkiError {
    #[error("cannot create {}", path.display())]
    Create { path: PathBuf, source: io::Error },
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot write {}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("{} is damaged ({why}); delete it, and the next start makes a new one", path.display())]
    Damaged { path: PathBuf, why: String },
    #[error(
        "{} is damaged or lost ({why}); everything in this cluster trusts it: restore it from a backup, \
         or start over with --fresh, which empties the cluster's data", path.display()
    )]
    Authority { path: PathBuf, why: String },
    #[error("cannot make a certificate for {name}")]
    Issue {
        name: String,
        #[source]
        source: rcgen::Error,
    },
}

impl ClusterPkiError {
    pub(super) fn damaged(path: &Path, why: impl ToString) -> Self {
        Self::Damaged {
            path: path.to_owned(),
            why: why.to_string(),
        }
    }

    pub(super) fn authority(path: &Path, why: impl ToString) -> Self {
        Self::Authority {
            path: path.to_owned(),
            why: why.to_string(),
        }
    }
}
