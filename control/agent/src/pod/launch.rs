//! From a container's specification to a running container: image, environment, mounts, user, limits.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, ResourceRequirements, VolumeMount};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Amount;
use meshgate_api::client::Quantity;
use nix::sys::signal::Signal;

use super::Node;
use super::env::{self, EnvError, Lookup};
use super::sandbox::Sandbox;
use super::security;
use crate::cgroup::Limits;
use crate::container::spec::{ContainerSpec, Mount, Resources};
use crate::container::{self, Running};
use crate::images::{Image, OwnImage, Reference};
use crate::paths::PodName;
use crate::shim::files::ShimConfig;
use crate::sources::{Known, SourceKey};
use crate::volume::Volumes;

/// Where programs are looked for in an image that does not say.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Where a container says why it ended, unless its specification says otherwise.
const TERMINATION_LOG: &str = "/dev/termination-log";

/// Why a container was not started.
#[derive(Debug)]
pub(crate) enum LaunchError {
    /// Something that is on its way: no reason to tell anybody.
    NotYet,
    /// Its image is not here; reason and message.
    Image(&'static str, String),
    /// Its specification cannot be met now.
    Config(String),
    /// It was tried and failed.
    Start(String),
}

/// A container to be launched.
pub(crate) struct Launch<'a> {
    pub(crate) node: &'a Node,
    pub(crate) pod: &'a Pod,
    pub(crate) spec: &'a PodSpec,
    pub(crate) container: &'a Container,
    pub(crate) sandbox: &'a Sandbox,
    pub(crate) volumes: &'a Volumes,
    pub(crate) known: &'a (dyn Fn(&SourceKey) -> Known + Sync),
    pub(crate) pod_ip: String,
    pub(crate) host_name: String,
}

/// Everything decided, nothing done.
pub(crate) struct Prepared {
    pub(crate) image: Image,
    env: Vec<(String, String)>,
}

impl Launch<'_> {
    fn name(&self) -> PodName<'_> {
        let meta = &self.pod.metadata;
        PodName {
            namespace: meta.namespace.as_deref().unwrap_or_default(),
            name: meta.name.as_deref().unwrap_or_default(),
            uid: meta.uid.as_deref().unwrap_or_default(),
        }
    }

    /// Looks for everything that may be missing.
    pub(crate) fn prepare(&self) -> Result<Prepared, LaunchError> {
        let image = self.image()?;
        let services = self.node.services.in_namespace(self.name().namespace);
        let links = self.spec.enable_service_links.unwrap_or(true);
        let lookup = Lookup {
            pod: self.pod,
            node: &self.node.facts,
            pod_ip: Some(self.pod_ip.clone()),
            known: self.known,
        };
        let env = env::environment(
            self.container,
            &lookup,
            &image.config.env,
            env::services(&services, links),
        )
        .map_err(|error| match error {
            EnvError::Loading(_) => LaunchError::NotYet,
            other => LaunchError::Config(other.to_string()),
        })?;
        Ok(Prepared { image, env })
    }

    fn image(&self) -> Result<Image, LaunchError> {
        let name = self.container.image.as_deref().unwrap_or_default();
        let reference = Reference::parse(name)
            .map_err(|error| LaunchError::Image("InvalidImageName", error.to_string()))?;
        if OwnImage::is_named(&reference) {
            return Ok(self.node.own_image.image());
        }
        let found = self.node.images.find(&reference);
        match found.map_err(|error| LaunchError::Config(crate::shim::chain(&error)))? {
            Some(image) => Ok(image),
            None if self.container.image_pull_policy.as_deref() == Some("Never") => {
                Err(LaunchError::Image(
                    "ErrImageNeverPull",
                    format!(
                        "Container image {name:?} is not present with pull policy of Never; load it with: meshgate image load FILE"
                    ),
                ))
            }
            None => Err(LaunchError::Image(
                "ImagePullBackOff",
                format!(
                    "image {name:?} is not in the image store and registries are not asked; load it with: meshgate image load FILE"
                ),
            )),
        }
    }

    /// Starts run number `run` under `id`.
    pub(crate) async fn start(
        &self,
        prepared: Prepared,
        id: &str,
        run: u32,
    ) -> Result<Running, LaunchError> {
        let files = self
            .node
            .paths
            .container_data(self.name().uid, &self.container.name, run);
        let spec = self.container_spec(&prepared, id, &files)?;
        let shim = self.shim_config(&prepared, id, run, &files);
        provide_cwd(&shim, &spec.cwd).map_err(|error| LaunchError::Start(error.to_string()))?;
        let dir = self.node.paths.container(id);
        container::start(&self.node.binary, &dir, &shim, &spec.to_json())
            .await
            .map_err(|error| LaunchError::Start(crate::shim::chain(&error)))
    }

    fn container_spec(
        &self,
        prepared: &Prepared,
        id: &str,
        files: &Path,
    ) -> Result<ContainerSpec, LaunchError> {
        let config = &prepared.image.config;
        let layers: Vec<PathBuf> = prepared
            .image
            .layers
            .iter()
            .map(|layer| self.node.images.layers_dir().join(layer))
            .collect();
        let wrong = |error: security::SecurityError| LaunchError::Config(error.to_string());
        let user = security::user(
            self.spec,
            self.container,
            &config.user,
            &layers,
            &self.node.mapped,
        )
        .map_err(wrong)?;
        let args = self.command_line(prepared);
        if args.is_empty() {
            return Err(LaunchError::Config(
                "no command specified: neither the image nor the container has one".to_owned(),
            ));
        }
        let cwd = [
            self.container.working_dir.as_deref(),
            Some(config.working_dir.as_str()),
        ]
        .into_iter()
        .flatten()
        .find(|dir| !dir.is_empty())
        .unwrap_or("/");
        Ok(ContainerSpec {
            args,
            env: self.env_list(&prepared.env),
            cwd: cwd.to_owned(),
            user,
            network: self.sandbox.network(),
            ipc: self.sandbox.ipc(),
            uts: self.sandbox.uts(),
            mounts: self.mounts(prepared, files)?,
            rights: security::rights(self.container, self.node.rootless),
            cgroup: self.node.cgroups.container(self.name().uid, id),
            resources: match self.node.cgroups.limits() {
                Limits::Enforced => Some(resources(self.container.resources.as_ref())),
                Limits::Absent(_) => None,
            },
            rootless: self.node.rootless,
        })
    }

    fn command_line(&self, prepared: &Prepared) -> Vec<String> {
        let config = &prepared.image.config;
        let own = |list: &Option<Vec<String>>| list.clone().filter(|list| !list.is_empty());
        let (command, args) = match (own(&self.container.command), own(&self.container.args)) {
            (Some(command), args) => (command, args.unwrap_or_default()),
            (None, Some(args)) => (config.entrypoint.clone(), args),
            (None, None) => (config.entrypoint.clone(), config.cmd.clone()),
        };
        let known: BTreeMap<&str, &str> = prepared
            .env
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        let value = |name: &str| known.get(name).map(|value| (*value).to_owned());
        command
            .iter()
            .chain(&args)
            .map(|word| env::expand(word, &value))
            .collect()
    }

    fn env_list(&self, env: &[(String, String)]) -> Vec<String> {
        let has = |name: &str| env.iter().any(|(known, _)| known == name);
        let mut list = Vec::new();
        if !has("PATH") {
            list.push(format!("PATH={DEFAULT_PATH}"));
        }
        if !has("HOSTNAME") {
            list.push(format!("HOSTNAME={}", self.host_name));
        }
        list.extend(env.iter().map(|(name, value)| format!("{name}={value}")));
        list
    }

    fn mounts(&self, prepared: &Prepared, files: &Path) -> Result<Vec<Mount>, LaunchError> {
        let failed = |error: io::Error| LaunchError::Start(error.to_string());
        let mut mounts = Vec::new();
        for wanted in self.container.volume_mounts.iter().flatten() {
            mounts.push(self.volume_mount(wanted, prepared)?);
        }
        let taken = |target: &str| {
            let own = self.container.volume_mounts.iter().flatten();
            own.into_iter()
                .any(|mount| mount.mount_path.trim_end_matches('/') == target)
        };
        let mut add = |source: PathBuf, target: &str| {
            if !taken(target) {
                mounts.push(Mount {
                    source,
                    target: target.to_owned(),
                    readonly: false,
                    follows: false,
                });
            }
        };
        let etc = self.node.paths.pod_data(self.name().uid).join("etc");
        for name in ["hosts", "hostname", "resolv.conf"] {
            add(etc.join(name), &format!("/etc/{name}"));
        }
        add(self.sandbox.shm(), "/dev/shm");
        fs::create_dir_all(files).map_err(failed)?;
        let message = files.join("termination-log");
        fs::write(&message, "").map_err(failed)?;
        // Whoever the container runs as must be able to write it.
        fs::set_permissions(
            &message,
            std::os::unix::fs::PermissionsExt::from_mode(0o666),
        )
        .map_err(failed)?;
        add(message, termination_path(self.container));
        Ok(mounts)
    }

    fn volume_mount(
        &self,
        wanted: &VolumeMount,
        prepared: &Prepared,
    ) -> Result<Mount, LaunchError> {
        let volume = self.volumes.path(&wanted.name).ok_or_else(|| {
            LaunchError::Config(format!(
                "volume {:?} is not defined in the pod",
                wanted.name
            ))
        })?;
        let known: BTreeMap<&str, &str> = prepared
            .env
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        let value = |name: &str| known.get(name).map(|value| (*value).to_owned());
        let sub_path = match (&wanted.sub_path, &wanted.sub_path_expr) {
            (_, Some(expression)) => env::expand(expression, &value),
            (Some(path), None) => path.clone(),
            (None, None) => String::new(),
        };
        let source = match sub_path.as_str() {
            "" => volume.to_owned(),
            path => within(volume, path).map_err(|error| {
                LaunchError::Config(format!(
                    "failed to prepare subPath for volumeMount {:?}: {error}",
                    wanted.name
                ))
            })?,
        };
        let files_of_ours = self.spec.volumes.iter().flatten().any(|volume| {
            volume.name == wanted.name
                && (volume.config_map.is_some()
                    || volume.secret.is_some()
                    || volume.projected.is_some()
                    || volume.downward_api.is_some())
        });
        Ok(Mount {
            source,
            target: wanted.mount_path.clone(),
            readonly: wanted.read_only.unwrap_or(false) || files_of_ours,
            follows: wanted
                .mount_propagation
                .as_deref()
                .is_some_and(|mode| mode != "None"),
        })
    }

    fn shim_config(&self, prepared: &Prepared, id: &str, run: u32, files: &Path) -> ShimConfig {
        let lifecycle = self.container.lifecycle.as_ref();
        let signal = lifecycle
            .and_then(|lifecycle| lifecycle.stop_signal.as_deref())
            .unwrap_or(&prepared.image.config.stop_signal);
        ShimConfig {
            id: id.to_owned(),
            layers_dir: self.node.images.layers_dir(),
            layers: prepared.image.layers.clone(),
            writable: files.join("fs"),
            log: self.node.paths.log(self.name(), &self.container.name, run),
            stop_signal: signal_number(signal),
            cgroup: self.node.cgroups.container(self.name().uid, id),
            stdin: self.container.stdin.unwrap_or(false),
        }
    }
}

/// Where a container may say why it ended.
pub(crate) fn termination_path(container: &Container) -> &str {
    container
        .termination_message_path
        .as_deref()
        .unwrap_or(TERMINATION_LOG)
}

/// `SIGTERM`, `TERM`, `15`.
fn signal_number(name: &str) -> i32 {
    let long = format!("SIG{}", name.trim_start_matches("SIG"));
    let number = name.parse().ok().filter(|number| (1..=64).contains(number));
    number
        .or_else(|| Signal::from_str(&long).ok().map(|signal| signal as i32))
        .unwrap_or(Signal::SIGTERM as i32)
}

fn resources(wanted: Option<&ResourceRequirements>) -> Resources {
    let amount = |map: Option<&BTreeMap<String, Amount>>, what: &str| {
        Quantity::parse(&map?.get(what)?.0).ok()
    };
    let limits = wanted.and_then(|wanted| wanted.limits.as_ref());
    let requests = wanted.and_then(|wanted| wanted.requests.as_ref());
    let cpu_limit = amount(limits, "cpu").map(Quantity::milli);
    let cpu_request = amount(requests, "cpu")
        .map(Quantity::milli)
        .or(cpu_limit)
        .unwrap_or(0);
    Resources::new(
        cpu_request,
        cpu_limit,
        amount(limits, "memory").map(Quantity::units),
    )
}

/// A path in a volume, made if missing. Neither dots nor links may lead out of it.
fn within(volume: &Path, path: &str) -> io::Result<PathBuf> {
    let plain = Path::new(path).components().all(|part| {
        matches!(
            part,
            std::path::Component::Normal(_) | std::path::Component::CurDir
        )
    });
    if !plain {
        return Err(io::Error::other("it must be a relative path without .."));
    }
    let wanted = volume.join(path);
    if fs::symlink_metadata(&wanted).is_err() {
        fs::create_dir_all(&wanted)?;
    }
    let (root, found) = (fs::canonicalize(volume)?, fs::canonicalize(&wanted)?);
    if !found.starts_with(&root) {
        return Err(io::Error::other("it leads outside of the volume"));
    }
    Ok(found)
}

/// A working directory that the image lacks is made, as container runtimes do.
fn provide_cwd(shim: &ShimConfig, cwd: &str) -> io::Result<()> {
    let relative = cwd.trim_start_matches('/');
    let there = shim
        .layers
        .iter()
        .any(|layer| fs::symlink_metadata(shim.layers_dir.join(layer).join(relative)).is_ok());
    let upper = shim.writable.join("upper");
    if there || relative.split('/').any(|part| part == "..") {
        return fs::create_dir_all(upper);
    }
    fs::create_dir_all(upper.join(relative))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_names_and_numbers() {
        for (text, number) in [
            ("", 15),
            ("SIGQUIT", 3),
            ("QUIT", 3),
            ("9", 9),
            ("SIGNONE", 15),
            ("99", 15),
        ] {
            assert_eq!(signal_number(text), number, "{text}");
        }
    }

    #[test]
    fn sub_paths_stay_inside() {
        let dir = tempfile::tempdir().expect("a folder");
        std::os::unix::fs::symlink("/etc", dir.path().join("out")).expect("a link");
        assert!(within(dir.path(), "a/b").is_ok_and(|path| path.is_dir()));
        assert!(within(dir.path(), "../a").is_err());
        assert!(within(dir.path(), "/etc").is_err());
        assert!(within(dir.path(), "out").is_err());
        assert!(within(dir.path(), "out/passwd").is_err());
    }
}
