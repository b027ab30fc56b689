//! A cluster as the host sees it: its name, its folder, who runs it.

pub(crate) mod leftovers;
mod lock;
mod state;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::args::ClusterArgs;
pub(crate) use lock::{Lock, bequeath, inherited};
pub(crate) use state::State;

/// A cluster's place on this machine.
#[derive(Debug, Clone)]
pub(crate) struct Cluster {
    pub(crate) name: String,
    pub(crate) data_dir: PathBuf,
}

impl Cluster {
    /// The cluster that the arguments name. A data directory given to `up` is remembered under the name, so that
    /// `down --name` and `status --name` find it.
    pub(crate) fn find(args: &ClusterArgs) -> anyhow::Result<Cluster> {
        let data_dir = match &args.data_dir {
            Some(dir) => std::path::absolute(dir)
                .with_context(|| format!("data directory {}", dir.display()))?,
            None => match remembered(&args.name) {
                Some(dir) => dir,
                None => default_dir(&args.name)?,
            },
        };
        Ok(Cluster {
            name: args.name.clone(),
            data_dir,
        })
    }

    /// Like [`Cluster::find`], for a new cluster: without a data directory it is the default one.
    pub(crate) fn place(args: &ClusterArgs) -> anyhow::Result<Cluster> {
        let mut cluster = Cluster::find(args)?;
        if args.data_dir.is_none() {
            cluster.data_dir = default_dir(&args.name)?;
        }
        Ok(cluster)
    }

    /// An error that says what to do when nobody has made the cluster. Whether it runs is another question.
    pub(crate) fn must_exist(&self) -> anyhow::Result<()> {
        if !self.data_dir.is_dir() {
            bail!(
                "there is no cluster {0:?}: {1} does not exist; `meshgate up --name {0} --data-dir {1}` starts one",
                self.name,
                self.data_dir.display()
            );
        }
        Ok(())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.data_dir.join(name)
    }

    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.path("kubeconfig")
    }

    pub(crate) fn logs(&self) -> PathBuf {
        self.path("logs")
    }

    /// Name of the cluster's control group: its own, also beside one of the same name with other data.
    pub(crate) fn cgroup(&self) -> String {
        let mut hasher = DefaultHasher::new();
        self.data_dir.hash(&mut hasher);
        format!(
            "meshgate-{}-{:08x}",
            self.name,
            hasher.finish() & 0xffff_ffff
        )
    }

    /// Notes where the cluster of this name has its data.
    pub(crate) fn remember(&self) -> anyhow::Result<()> {
        let file = registry()?.join(&self.name);
        if self.data_dir == default_dir(&self.name)? {
            return match std::fs::remove_file(&file) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    Err(error).with_context(|| format!("cannot remove {}", file.display()))
                }
                _ => Ok(()),
            };
        }
        std::fs::create_dir_all(registry()?)
            .and_then(|()| std::fs::write(&file, self.data_dir.as_os_str().as_encoded_bytes()))
            .with_context(|| {
                format!(
                    "cannot note the cluster's data directory in {}",
                    file.display()
                )
            })
    }

    /// The running cluster's state; an error that says what to do when there is none.
    pub(crate) fn running(&self) -> anyhow::Result<State> {
        self.must_exist()?;
        if !Lock::is_held(&self.data_dir)? {
            bail!(
                "cluster {:?} is not running; `meshgate up --name {} --data-dir {}` starts it",
                self.name,
                self.name,
                self.data_dir.display()
            );
        }
        State::read(&self.data_dir)
    }
}

fn default_dir(name: &str) -> anyhow::Result<PathBuf> {
    Ok(base()?.join(name))
}

fn registry() -> anyhow::Result<PathBuf> {
    Ok(base()?.join(".clusters"))
}

fn base() -> anyhow::Result<PathBuf> {
    let xdg = std::env::var_os("XDG_DATA_HOME")
        .map(PathBuf::from)
        .filter(|p| p.is_absolute());
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".local/share"));
    let base = xdg.or_else(home).context(
        "neither XDG_DATA_HOME nor HOME is set: say where the data belongs with --data-dir DIR",
    )?;
    Ok(base.join("meshgate"))
}

fn remembered(name: &str) -> Option<PathBuf> {
    let text = std::fs::read_to_string(registry().ok()?.join(name)).ok()?;
    Some(PathBuf::from(text)).filter(|dir| dir.is_dir())
}
