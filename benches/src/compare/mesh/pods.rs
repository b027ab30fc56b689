//! Pods of a cluster of the bench's own, and what runs in their networks.

use std::fs::{self, File};
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use kube::core::DynamicObject;
use meshgate_api::names::{PORT_METRICS, SIDECAR_CONTAINER};
use nix::sched::{CloneFlags, CpuSet, sched_setaffinity, setns};
use nix::unistd::Pid;
use serde_json::json;
use tokio::runtime::Runtime;

use super::super::origin::{Origin, SMALL};
use super::super::peer::{PROXY_CORE, Programs};
use super::super::site::HOST;
use crate::cluster::{self, Cluster, Ports};
use crate::probe::{self, Probe};
use crate::process;

const MANIFEST: &str = include_str!("pods.yaml");
/// Of the Services in the manifest, and of what stands behind them.
const MESHED: Ipv4Addr = Ipv4Addr::new(10, 96, 100, 1);
const PLAIN: Ipv4Addr = Ipv4Addr::new(10, 96, 100, 2);
const SERVICE_PORT: u16 = 80;
const ORIGIN_PORT: u16 = 8000;
/// Until a pod runs; images are there.
const STARTING: Duration = Duration::from_secs(60);
/// Between two looks at the processes.
const PAUSE: Duration = Duration::from_millis(50);

/// Ended when dropped: the origins, then the cluster that they are in.
pub(super) struct Pods {
    pub(super) meshed: Way,
    pub(super) plain: Way,
    pub(super) sidecars: [Sidecar; 2],
    _origins: [Origin; 2],
    _cluster: Cluster,
}

/// From a caller to an origin.
pub(super) struct Way {
    pub(super) caller: Network,
    pub(super) service: SocketAddr,
}

impl Pods {
    /// Returns when both ways answer. Sidecars have the core of proxies, everything else that of this process.
    pub(super) fn start(
        programs: &Programs,
        origin_core: usize,
        runtime: &Runtime,
    ) -> anyhow::Result<Self> {
        let run = std::process::id().to_string();
        let objects = with_sidecars(&programs.meshgate, &MANIFEST.replace("RUN", &run))?;
        let cluster = Cluster::start(Ports::free().context("free ports")?, &[])?;
        runtime.block_on(async {
            let client = cluster.client().await?;
            cluster::apply(&client, &objects).await
        })?;
        let network = |pod: &str| Network::of(&format!("{pod}-{run}"));
        let (server, plain_server) = (network("server")?, network("plain-server")?);
        let origin = |network: &Network| {
            let address = (Ipv4Addr::UNSPECIFIED, ORIGIN_PORT).into();
            Origin::start_in(network.0, address, origin_core)
        };
        let origins = [origin(&server)?, origin(&plain_server)?];
        let way = |caller, service: Ipv4Addr| Way {
            caller,
            service: (service, SERVICE_PORT).into(),
        };
        let (meshed, plain) = (
            way(network("caller")?, MESHED),
            way(network("plain-caller")?, PLAIN),
        );
        for way in [&meshed, &plain] {
            way.caller
                .run(|| probe::until(way.service, HOST, SMALL, |answer| answer.status == 200))?;
        }
        let sidecars = ["caller", "server"].map(|pod| Sidecar::of(&cluster, pod));
        let [outbound, inbound] = sidecars;
        Ok(Self {
            meshed,
            plain,
            sidecars: [outbound?, inbound?],
            _origins: origins,
            _cluster: cluster,
        })
    }
}

/// As the injector puts them into pods, but with access records: everything in the comparison has them.
fn with_sidecars(meshgate: &Path, manifest: &str) -> anyhow::Result<Vec<DynamicObject>> {
    let mut inject = Command::new(meshgate)
        .args(["inject", "-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("meshgate inject")?;
    let mut input = inject.stdin.take().context("its input")?;
    input.write_all(manifest.as_bytes())?;
    drop(input);
    let output = inject.wait_with_output()?;
    ensure!(output.status.success(), "meshgate inject failed");
    let mut objects = cluster::documents(&String::from_utf8(output.stdout)?)?;
    for object in &mut objects {
        let container = object
            .data
            .pointer_mut("/spec/template/spec/initContainers/0");
        let sidecar = container.filter(|container| container["name"] == SIDECAR_CONTAINER);
        if let Some(sidecar) = sidecar {
            let arguments = sidecar["args"].as_array_mut().context("arguments")?;
            arguments.extend([json!("--access-log"), json!("json")]);
        }
    }
    Ok(objects)
}

/// The network of a process.
pub(super) struct Network(u32);

impl Network {
    /// Of the pod whose container was given this name.
    fn of(pod: &str) -> anyhow::Result<Self> {
        let start = Instant::now();
        let variable = format!("BENCH_POD={pod}");
        loop {
            if let Some(pid) = process::with_environment(&variable)? {
                return Ok(Self(pid));
            }
            ensure!(start.elapsed() < STARTING, "pod {pod} did not start");
            std::thread::sleep(PAUSE);
        }
    }

    /// What runs there sees only that network; a thread of its own enters it.
    pub(super) fn run<T: Send>(
        &self,
        work: impl FnOnce() -> anyhow::Result<T> + Send,
    ) -> anyhow::Result<T> {
        let network = File::open(format!("/proc/{}/ns/net", self.0)).context("a pod's network")?;
        std::thread::scope(|scope| {
            let inside = scope.spawn(move || {
                setns(network, CloneFlags::CLONE_NEWNET).context("entering a pod's network")?;
                work()
            });
            let ended = inside.join();
            ended.map_err(|_| anyhow::anyhow!("what ran in a pod's network failed"))?
        })
    }
}

/// A running sidecar.
pub(super) struct Sidecar {
    pid: u32,
}

impl Sidecar {
    /// On the core of proxies from now on.
    fn of(cluster: &Cluster, pod: &str) -> anyhow::Result<Self> {
        let pid = cluster.pid_of(&format!("sidecar/bench/{pod}-"))?;
        let mut cores = CpuSet::new();
        cores.set(PROXY_CORE)?;
        for thread in fs::read_dir(format!("/proc/{pid}/task")).context("a sidecar's threads")? {
            let thread = thread?.file_name();
            let thread = thread.to_str().and_then(|id| id.parse().ok());
            let thread = Pid::from_raw(thread.context("a thread's id")?);
            sched_setaffinity(thread, &cores).context("a core for a sidecar")?;
        }
        Ok(Self { pid })
    }

    pub(super) fn cpu(&self) -> anyhow::Result<Duration> {
        process::cpu(self.pid)
    }

    /// The sum of the series that have all these parts in their names.
    pub(super) fn counted(&self, parts: &[&str]) -> anyhow::Result<u64> {
        let metrics = (Ipv4Addr::LOCALHOST, PORT_METRICS).into();
        let page = Network(self.pid).run(|| {
            let answer = Probe::new(metrics, "metrics").ask("/metrics");
            Ok(answer.context("a sidecar's metrics")?.body)
        })?;
        let lines = page.lines().filter(|line| !line.starts_with('#'));
        let series = lines.filter(|line| parts.iter().all(|part| line.contains(part)));
        let values = series.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
        Ok(values.sum())
    }
}
