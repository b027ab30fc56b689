//! A pod's volumes: folders made before its containers start, files kept true to their sources while they run.

mod atomic;
mod host;
mod payload;
mod token;

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use k8s_openapi::api::core::v1::{Pod, Volume};
use meshgate_api::client::Quantity;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::pod::NodeFacts;
use crate::sources::{Known, SourceKey};
use payload::Payload;
pub(crate) use payload::sources;
use token::Tokens;

/// Why a volume is not ready.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VolumeError {
    /// A source has not answered yet: no reason to tell anybody.
    #[error("waiting for {0}")]
    Loading(SourceKey),
    /// Somebody must do something, or it will come by itself.
    #[error("MountVolume.SetUp failed for volume {volume:?} : {why}")]
    Failed { volume: String, why: String },
}

/// What a pod's volumes need to know.
pub(crate) struct VolumeContext<'a> {
    pub(crate) client: &'a kube::Client,
    pub(crate) pod: &'a Pod,
    pub(crate) node: &'a NodeFacts,
    pub(crate) pod_ip: Option<String>,
    pub(crate) known: &'a (dyn Fn(&SourceKey) -> Known + Sync),
    /// Folder on disk.
    pub(crate) data: PathBuf,
    /// Folder in memory.
    pub(crate) run: PathBuf,
}

/// The volumes of one pod.
#[derive(Debug, Default)]
pub(crate) struct Volumes {
    /// Where each is, for containers to mount.
    paths: HashMap<String, PathBuf>,
    /// What was last written to those with files.
    written: HashMap<String, Payload>,
    tokens: Tokens,
}

impl Volumes {
    /// Makes what is missing and brings files up to date. Safe to repeat at any time.
    pub(crate) async fn sync(&mut self, context: &VolumeContext<'_>) -> Result<(), VolumeError> {
        let volumes = context
            .pod
            .spec
            .iter()
            .flat_map(|spec| spec.volumes.iter().flatten());
        for volume in volumes {
            let failed = |why: String| VolumeError::Failed {
                volume: volume.name.clone(),
                why,
            };
            match payload::payload(volume, context, &mut self.tokens).await {
                Ok(Some(payload)) => {
                    let dir = context.run.join("volumes").join(&volume.name);
                    if self.written.get(&volume.name) != Some(&payload) {
                        let owner = payload::group(context.pod);
                        atomic::write(&dir, &payload, owner)
                            .map_err(|error| failed(error.to_string()))?;
                        self.written.insert(volume.name.clone(), payload);
                    }
                    self.paths.insert(volume.name.clone(), dir);
                }
                Ok(None) if self.paths.contains_key(&volume.name) => {}
                Ok(None) => {
                    let path = folder(volume, context).map_err(failed)?;
                    self.paths.insert(volume.name.clone(), path);
                }
                Err(payload::PayloadError::Loading(key)) => return Err(VolumeError::Loading(key)),
                Err(payload::PayloadError::Failed(why)) => return Err(failed(why)),
            }
        }
        Ok(())
    }

    /// Where a volume is.
    pub(crate) fn path(&self, name: &str) -> Option<&Path> {
        self.paths.get(name).map(PathBuf::as_path)
    }

    /// When a token is to be renewed.
    pub(crate) fn next_refresh(&self) -> Option<Instant> {
        self.tokens.next_refresh()
    }
}

/// Undoes the mounts of a pod's volumes; their files go with the pod's folders.
pub(crate) fn unmount(run: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(run.join("volumes")) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        // Most are no mounts, which is no error.
        let _ = umount2(&entry?.path(), MntFlags::MNT_DETACH);
    }
    Ok(())
}

/// Volumes without files of ours.
fn folder(volume: &Volume, context: &VolumeContext<'_>) -> Result<PathBuf, String> {
    if let Some(path) = &volume.host_path {
        return host::prepare(&path.path, path.type_.as_deref().unwrap_or_default());
    }
    if let Some(empty) = &volume.empty_dir {
        let memory = empty
            .medium
            .as_deref()
            .is_some_and(|medium| medium == "Memory");
        let root = if memory { &context.run } else { &context.data };
        let dir = root.join("volumes").join(&volume.name);
        let result = make_empty(&dir, payload::group(context.pod)).and_then(|()| match memory {
            true => mount_memory(
                &dir,
                empty.size_limit.as_ref().map(|limit| limit.0.as_str()),
            ),
            false => Ok(()),
        });
        return result.map(|()| dir).map_err(|error| error.to_string());
    }
    Err(format!(
        "volumes of this kind are not supported on this node ({})",
        kind(volume)
    ))
}

fn kind(volume: &Volume) -> String {
    let value = serde_json::to_value(volume).unwrap_or_default();
    let mut kinds = value
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, _)| key.as_str());
    kinds
        .find(|key| *key != "name")
        .unwrap_or("none")
        .to_owned()
}

fn make_empty(dir: &Path, group: Option<u32>) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    let mode = match group {
        Some(group) => {
            std::os::unix::fs::chown(dir, None, Some(group))?;
            0o2777
        }
        None => 0o777,
    };
    fs::set_permissions(dir, PermissionsExt::from_mode(mode))
}

fn mount_memory(dir: &Path, limit: Option<&str>) -> io::Result<()> {
    let mounted = nix::sys::statfs::statfs(dir)?.filesystem_type() == nix::sys::statfs::TMPFS_MAGIC;
    // The folder above is usually a tmpfs too: a mount of its own has another device than its parent.
    let own = fs::metadata(dir)
        .ok()
        .zip(dir.parent().and_then(|parent| fs::metadata(parent).ok()));
    if mounted
        && own.is_some_and(|(dir, parent)| {
            use std::os::unix::fs::MetadataExt;
            dir.dev() != parent.dev()
        })
    {
        return Ok(());
    }
    let size = limit
        .and_then(|limit| Quantity::parse(limit).ok())
        .map(|limit| format!("mode=1777,size={}", limit.units()));
    Ok(mount(
        Some("tmpfs"),
        dir,
        Some("tmpfs"),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
        Some(size.as_deref().unwrap_or("mode=1777")),
    )?)
}
