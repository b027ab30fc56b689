//! Getting a pod to run: sandbox, volumes, containers.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use meshgate_api::client::EventKind;
use tokio::time::Instant;

use super::super::env;
use super::super::hooks;
use super::super::launch::{Launch, LaunchError, Prepared};
use super::super::record::Ended;
use super::super::slot::{CRASH_LOOP, SlotState};
use super::super::{downward, etc};
use super::{News, Told, Worker};
use crate::sources::SourceKey;
use crate::volume::{self, VolumeContext, VolumeError};

/// Wait before a sandbox or a volume that failed is tried again; changes of what they need come by themselves.
const RETRY: Duration = Duration::from_secs(2);
/// Longest run of a postStart hook.
const POST_START_TIMEOUT: Duration = Duration::from_secs(120);
/// Exit code of a container that did not start.
const START_FAILED_CODE: i32 = 128;

impl Worker {
    /// Sandbox and volumes; whether both are there.
    pub(super) async fn prepare(&mut self) -> bool {
        self.hold_sources();
        if !self.sandbox_ready && !self.make_sandbox().await {
            return false;
        }
        self.sync_volumes().await
    }

    fn hold_sources(&mut self) {
        if !self.held.is_empty() {
            return;
        }
        let mut keys: Vec<SourceKey> = volume::sources(&self.pod);
        for container in downward::containers(&self.pod) {
            keys.extend(env::sources(container, &self.record.namespace));
        }
        for key in keys {
            let source = self.node.sources.hold(&key, &self.wake);
            self.held.insert(key, source);
        }
    }

    async fn make_sandbox(&mut self) -> bool {
        match self.try_sandbox().await {
            Ok(()) => {
                self.sandbox_ready = true;
                self.complaints.remove("sandbox");
                self.save();
                true
            }
            Err(why) => {
                let message = format!("Failed to create pod sandbox: {why}");
                self.complain("sandbox", None, "FailedCreatePodSandBox", &message);
                self.wake_at(Instant::now() + RETRY);
                false
            }
        }
    }

    async fn try_sandbox(&mut self) -> Result<(), String> {
        let Some(spec) = self.pod.spec.clone() else {
            return Err("the pod has no specification".to_owned());
        };
        let (host_name, full) = etc::host_names(&spec, &self.record.name, &self.record.namespace);
        let shown = match (&full, spec.set_hostname_as_fqdn) {
            (Some(full), Some(true)) => full.clone(),
            _ => host_name.clone(),
        };
        // The record comes first: whatever is made now can be found and removed by whoever comes later.
        self.save();
        self.sandbox
            .create(&shown)
            .map_err(|error| crate::shim::chain(&error))?;
        let address = match self.sandbox.network() {
            Some(path) => {
                let attached = self.node.network.attach(&path, &self.record.uid).await;
                let attached = attached.map_err(|error| crate::shim::chain(&error))?;
                self.record.address = Some(attached.address);
                attached.address.to_string()
            }
            None => self.node.facts.address.clone(),
        };
        let dir = self.node.paths.pod_data(&self.record.uid).join("etc");
        let host = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        let files = [
            (
                "hosts",
                etc::hosts(&spec, &address, &host_name, full.as_deref()),
            ),
            ("hostname", format!("{shown}\n")),
            (
                "resolv.conf",
                etc::resolv_conf(&spec, &self.record.namespace, &host),
            ),
        ];
        write_files(&dir, &files).map_err(|error| error.to_string())
    }

    async fn sync_volumes(&mut self) -> bool {
        let known = {
            let held = &self.held;
            move |key: &SourceKey| {
                held.get(key)
                    .map_or(crate::sources::Known::Loading, |source| source.known(key))
            }
        };
        let context = VolumeContext {
            client: &self.node.client,
            pod: &self.pod,
            node: &self.node.facts,
            pod_ip: self.pod_ip(),
            known: &known,
            data: self.node.paths.pod_data(&self.record.uid),
            run: self.node.paths.pod_run(&self.record.uid),
        };
        let mut volumes = std::mem::take(&mut self.volumes);
        let result = volumes.sync(&context).await;
        self.volumes = volumes;
        if let Some(at) = self.volumes.next_refresh() {
            self.wake_at(Instant::from_std(at));
        }
        match result {
            Ok(()) => {
                self.complaints.remove("volumes");
                true
            }
            Err(VolumeError::Loading(_)) => false,
            Err(error) => {
                self.complain("volumes", None, "FailedMount", &error.to_string());
                self.wake_at(Instant::now() + RETRY);
                // What runs, runs on with what it has; nothing new starts.
                false
            }
        }
    }

    /// Starts a container, unless it has to wait.
    pub(super) async fn start(&mut self, slot: usize) {
        let now = std::time::Instant::now();
        if let Some(due) = self.slots[slot].backoff.due(now) {
            self.wait_for_backoff(slot, due);
            return;
        }
        let prepared = {
            let known = self.lookup();
            match self.launch(slot, &known).map(|launch| launch.prepare()) {
                Some(prepared) => prepared,
                None => return,
            }
        };
        match prepared {
            Ok(prepared) => self.run_container(slot, prepared).await,
            Err(error) => self.not_started(slot, error),
        }
    }

    fn wait_for_backoff(&mut self, slot: usize, due: std::time::Instant) {
        self.wake_at(Instant::from_std(due));
        let gap = self.slots[slot].backoff.gap();
        if let SlotState::Ended(ended) = &self.slots[slot].state {
            let ended = ended.clone();
            let name = self.slots[slot].name().to_owned();
            let pod = format!(
                "{}_{}({})",
                self.record.name, self.record.namespace, self.record.uid
            );
            let message = format!(
                "back-off {}s restarting failed container={name} pod={pod}",
                gap.as_secs()
            );
            self.slots[slot].last = Some(ended);
            self.slots[slot].state = SlotState::waiting(CRASH_LOOP, message);
            let told = format!("Back-off restarting failed container {name} in pod {pod}");
            self.event(Some(slot), EventKind::Warning, "BackOff", &told);
        }
    }

    fn launch<'a>(
        &'a self,
        slot: usize,
        known: &'a (dyn Fn(&SourceKey) -> crate::sources::Known + Sync),
    ) -> Option<Launch<'a>> {
        let spec = self.spec()?;
        let (host_name, _) = etc::host_names(spec, &self.record.name, &self.record.namespace);
        Some(Launch {
            node: &self.node,
            pod: &self.pod,
            spec,
            container: &self.slots[slot].spec,
            sandbox: &self.sandbox,
            volumes: &self.volumes,
            known,
            pod_ip: self.pod_ip().unwrap_or_default(),
            host_name,
        })
    }

    async fn run_container(&mut self, slot: usize, prepared: Prepared) {
        let image = self.slots[slot].spec.image.clone().unwrap_or_default();
        self.complaints.remove(self.slots[slot].name());
        let message = format!(
            "Container image {image:?} already present on machine and can be accessed by the pod"
        );
        self.event(Some(slot), EventKind::Normal, "Pulled", &message);
        let id = new_id();
        self.begin_run(slot, &id, &prepared.image.id);
        let result = {
            let known = self.lookup();
            match self.launch(slot, &known) {
                Some(launch) => launch.start(prepared, &id, self.slots[slot].run).await,
                None => return,
            }
        };
        let name = self.slots[slot].name().to_owned();
        match result {
            Ok(running) => {
                self.event(
                    Some(slot),
                    EventKind::Normal,
                    "Created",
                    &format!("Container created: {name}"),
                );
                self.slots[slot].ready = self.slots[slot].spec.readiness_probe.is_none();
                let (pod, run) = (&self.record.name, self.slots[slot].run);
                tracing::info!(
                    namespace = self.record.namespace,
                    pod,
                    container = name,
                    run,
                    "container started"
                );
                self.attach(slot, running, false);
                self.save();
                self.event(
                    Some(slot),
                    EventKind::Normal,
                    "Started",
                    &format!("Container started: {name}"),
                );
                self.post_start(slot);
            }
            Err(error) => self.run_failed(slot, &id, error),
        }
    }

    /// A new run: its number and name are written down before anything of it exists.
    fn begin_run(&mut self, slot: usize, id: &str, image_id: &str) {
        let name = self.slots[slot].name().to_owned();
        let ran = self.record.container(&name).id.is_some();
        let state = &mut self.slots[slot];
        if let SlotState::Ended(ended) = &state.state {
            state.last = Some(ended.clone());
        }
        if ran {
            let old = self.node.paths.container_data(
                &self.record.uid,
                &name,
                state.run.saturating_sub(1),
            );
            // The last run's files stay, those before go.
            let _ = fs::remove_dir_all(old);
            state.run += 1;
        }
        state.started = false;
        state.image_id = image_id.to_owned();
        state.backoff.started(std::time::Instant::now());
        state.state = SlotState::waiting("ContainerCreating", "");
        let record = self.record.container(&name);
        record.id = Some(id.to_owned());
        record.ended = None;
        self.save();
    }

    /// The container was made and did not start: an end like any other, so that restarts and backoff apply.
    fn run_failed(&mut self, slot: usize, id: &str, error: LaunchError) {
        let why = match error {
            LaunchError::Start(why) | LaunchError::Config(why) | LaunchError::Image(_, why) => why,
            LaunchError::NotYet => return,
        };
        self.event(
            Some(slot),
            EventKind::Warning,
            "Failed",
            &format!("Error: {why}"),
        );
        let now = jiff::Timestamp::now();
        self.slots[slot].state = SlotState::Ended(Ended {
            id: id.to_owned(),
            code: START_FAILED_CODE,
            signal: None,
            reason: "StartError".to_owned(),
            message: why,
            started_at: None,
            finished_at: Some(now),
        });
        self.save();
        let _ = fs::remove_dir_all(self.node.paths.container(id));
        // Look again: the rules of restarts decide.
        self.wake.notify_one();
    }

    /// Something is missing: the container waits for it.
    fn not_started(&mut self, slot: usize, error: LaunchError) {
        let name = self.slots[slot].name().to_owned();
        if let SlotState::Ended(ended) = &self.slots[slot].state {
            self.slots[slot].last = Some(ended.clone());
        }
        match error {
            LaunchError::NotYet => {}
            LaunchError::Image(reason, message) => {
                self.complain(&name, Some(slot), "Failed", &message);
                self.slots[slot].state = SlotState::waiting(reason, message);
            }
            LaunchError::Config(message) | LaunchError::Start(message) => {
                self.complain(&name, Some(slot), "Failed", &format!("Error: {message}"));
                self.slots[slot].state = SlotState::waiting("CreateContainerConfigError", message);
            }
        }
    }

    fn post_start(&mut self, slot: usize) {
        let handler = self.slots[slot]
            .spec
            .lifecycle
            .as_ref()
            .and_then(|lifecycle| lifecycle.post_start.clone());
        let (Some(handler), Some(running)) = (handler, self.slots[slot].running().cloned()) else {
            return;
        };
        let (target, tell) = (self.target(slot, &running), self.tell.clone());
        let task = tokio::spawn(async move {
            if let Err(why) = hooks::run(&handler, &target, POST_START_TIMEOUT).await {
                let _ = tell.send(Told {
                    slot,
                    id: running.id.clone(),
                    news: News::Hook("postStart", why),
                });
            }
        });
        self.slots[slot].tasks.push(task.abort_handle());
    }
}

fn write_files(dir: &Path, files: &[(&str, String)]) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    for (name, text) in files {
        fs::write(dir.join(name), text)?;
    }
    Ok(())
}

/// 64 hexadecimal digits, as container ids have.
fn new_id() -> String {
    format!(
        "{}{}",
        uuid::Uuid::new_v4().simple(),
        uuid::Uuid::new_v4().simple()
    )
}
