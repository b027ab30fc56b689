//! Probes: asked from inside the pod's own network namespace, so that a pod whose mesh refuses plain text from outside
//! can still be probed.

mod grpc;
pub(crate) mod http;
mod schedule;
mod stream;

use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::time::Instant;

use crate::container::start_exec;
use crate::shim;
use schedule::{Schedule, Verdict};

/// Where a container is probed.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// The pod's network namespace; `None` for the node's.
    pub(crate) netns: Option<PathBuf>,
    pub(crate) address: Ipv4Addr,
    /// Named ports of the container.
    pub(crate) ports: Vec<(String, u16)>,
    /// Runs commands in containers.
    pub(crate) binary: PathBuf,
    /// The running container's files.
    pub(crate) dir: PathBuf,
}

/// What a probe is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProbeKind {
    Startup,
    Readiness,
    Liveness,
}

impl ProbeKind {
    /// As events begin.
    pub(crate) fn word(self) -> &'static str {
        match self {
            ProbeKind::Startup => "Startup",
            ProbeKind::Readiness => "Readiness",
            ProbeKind::Liveness => "Liveness",
        }
    }
}

/// News of a container's probes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ProbeNews {
    /// The startup probe passed.
    Started,
    /// The container takes traffic, or does not.
    Ready(bool),
    /// A probe failed: for an event.
    Unhealthy(ProbeKind, String),
    /// A probe failed for good: the container must be restarted.
    Dead(ProbeKind),
}

/// The probes of a container that has just started, or was found running.
pub(crate) struct Probes {
    pub(crate) startup: Option<Probe>,
    pub(crate) readiness: Option<Probe>,
    pub(crate) liveness: Option<Probe>,
}

/// Probes until dropped or dead. `tell` must not block.
pub(crate) async fn run(probes: Probes, target: Target, tell: impl Fn(ProbeNews)) {
    let began = Instant::now();
    if let Some(probe) = &probes.startup {
        let passed = until_verdict(ProbeKind::Startup, probe, &target, began, &tell).await;
        if !passed {
            tell(ProbeNews::Dead(ProbeKind::Startup));
            return;
        }
        tell(ProbeNews::Started);
    }
    let readiness = async {
        if let Some(probe) = &probes.readiness {
            watch_readiness(probe, &target, began, &tell).await;
        }
    };
    let liveness = async {
        if let Some(probe) = &probes.liveness {
            until_verdict(ProbeKind::Liveness, probe, &target, began, &tell).await;
            tell(ProbeNews::Dead(ProbeKind::Liveness));
        }
    };
    tokio::join!(readiness, liveness);
}

/// A startup probe until it passes or fails for good; a liveness probe until it fails for good.
async fn until_verdict(
    kind: ProbeKind,
    probe: &Probe,
    target: &Target,
    began: Instant,
    tell: &impl Fn(ProbeNews),
) -> bool {
    let mut schedule = Schedule::new(kind, probe);
    tokio::time::sleep_until(began + schedule.initial_delay()).await;
    loop {
        let at = Instant::now();
        let result = once(probe, target).await;
        let (verdict, wait) = schedule.result(result.is_ok(), at);
        if let (Err(why), true) = (&result, schedule.last_counted()) {
            tell(ProbeNews::Unhealthy(kind, why.clone()));
        }
        match verdict {
            Verdict::Passes if kind == ProbeKind::Startup => return true,
            Verdict::Fails => return false,
            _ => tokio::time::sleep_until(at + wait).await,
        }
    }
}

async fn watch_readiness(
    probe: &Probe,
    target: &Target,
    began: Instant,
    tell: &impl Fn(ProbeNews),
) {
    let mut schedule = Schedule::new(ProbeKind::Readiness, probe);
    tokio::time::sleep_until(began + schedule.initial_delay()).await;
    let mut ready = None;
    loop {
        let at = Instant::now();
        let result = once(probe, target).await;
        let (verdict, wait) = schedule.result(result.is_ok(), at);
        if let (Err(why), true) = (&result, schedule.last_counted()) {
            tell(ProbeNews::Unhealthy(ProbeKind::Readiness, why.clone()));
        }
        let now = match verdict {
            Verdict::Passes => Some(true),
            Verdict::Fails => Some(false),
            Verdict::Undecided => ready,
        };
        if now != ready {
            ready = now;
            tell(ProbeNews::Ready(now == Some(true)));
        }
        tokio::time::sleep_until(at + wait).await;
    }
}

/// One attempt; the error is what an event says.
async fn once(probe: &Probe, target: &Target) -> Result<(), String> {
    let seconds = u64::try_from(probe.timeout_seconds.unwrap_or(1))
        .unwrap_or(1)
        .max(1);
    let timeout = Duration::from_secs(seconds);
    if let Some(exec) = &probe.exec {
        let command = exec.command.clone().unwrap_or_default();
        return match target.exec(&command, timeout).await {
            Ok((0, _)) => Ok(()),
            Ok((code, _)) if code == i32::from(shim::EXEC_TIMED_OUT) => Err(format!(
                "command timed out: {command:?} timed out after {seconds}s"
            )),
            Ok((code, output)) if output.trim().is_empty() => {
                Err(format!("command exited with {code}"))
            }
            Ok((_, output)) => Err(output.trim().to_owned()),
            Err(error) => Err(error.to_string()),
        };
    }
    let attempt = async {
        if let Some(get) = &probe.http_get {
            return http::get(target, get).await;
        }
        if let Some(tcp) = &probe.tcp_socket {
            let port = target.port(&tcp.port)?;
            return stream::connect(target, port)
                .await
                .map(drop)
                .map_err(|error| error.to_string());
        }
        if let Some(grpc) = &probe.grpc {
            let port =
                u16::try_from(grpc.port).map_err(|_| format!("port {} is none", grpc.port))?;
            return grpc::check(target, port, grpc.service.as_deref().unwrap_or_default()).await;
        }
        Ok(())
    };
    match tokio::time::timeout(timeout, attempt).await {
        Ok(result) => result,
        Err(_) => Err(format!(
            "no answer within {seconds} s (context deadline exceeded)"
        )),
    }
}

impl Target {
    /// Ports of a container, for probes that name one.
    pub(crate) fn ports(container: &Container) -> Vec<(String, u16)> {
        let ports = container.ports.iter().flatten();
        ports
            .filter_map(|port| Some((port.name.clone()?, u16::try_from(port.container_port).ok()?)))
            .collect()
    }

    fn port(&self, port: &IntOrString) -> Result<u16, String> {
        let found = match port {
            IntOrString::Int(number) => u16::try_from(*number).ok(),
            IntOrString::String(name) => self
                .ports
                .iter()
                .find(|(known, _)| known == name)
                .map(|(_, number)| *number)
                .or_else(|| name.parse().ok()),
        };
        found
            .filter(|port| *port > 0)
            .ok_or_else(|| format!("the container has no port {port:?}"))
    }

    /// Runs a command in the container: exit code and output.
    pub(crate) async fn exec(
        &self,
        command: &[String],
        timeout: Duration,
    ) -> io::Result<(i32, String)> {
        start_exec(&self.binary, &self.dir, command, timeout).await
    }
}
