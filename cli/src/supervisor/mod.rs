//! First process of a cluster: its mounts and networks, its control plane and agents, and whatever loses its parent.
//!
//! When it ends, the kernel ends every process, mount, rule and link of the cluster with it.

mod children;
mod host_sockets;
mod mounts;
pub(crate) mod spec;

use std::fs::File;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use meshgate_agent::net::cluster as network;
use meshgate_api::names;
use nix::sys::signal::Signal;

use crate::cluster::inherited;
use children::{Child, Children, Outcome};
use spec::{Report, Spec};

/// Folder for what does not outlive the cluster; inside its own mount namespace.
const RUN_DIR: &str = "/run/meshgate";

pub(crate) fn run(spec: &str) -> anyhow::Result<ExitCode> {
    let spec = Spec::from_argument(spec)?;
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).context("cannot ask to end with the keeper")?;
    // Kept open for the life of this process: the lock of the data directory.
    let _lock = inherited(spec.lock)?;
    let mut report = File::from(inherited(spec.report)?);
    match supervise(&spec, &mut report) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) => {
            Report::Failed(format!("{error:#}")).send(&mut report);
            Err(error)
        }
    }
}

fn supervise(spec: &Spec, report: &mut File) -> anyhow::Result<()> {
    let mut children = Children::new()?;
    let api = inherited(spec.api)?;
    if spec.isolated() {
        mounts::prepare()?;
        set_up_network(spec)?;
        report_step(report, Report::Network);
        let mut sockets = Vec::new();
        for (name, descriptor) in [("http", spec.http), ("https", spec.https)] {
            if let Some(descriptor) = descriptor {
                sockets.push((name, inherited(descriptor)?));
            }
        }
        host_sockets::serve(sockets)?;
    }
    children.add(control(spec, api))?;
    let mut agents_wait = true;
    loop {
        match children.wait()? {
            Outcome::Ready if agents_wait => {
                report_step(report, Report::Api);
                for (index, name) in spec.node_names() {
                    children.add(agent(spec, index, &name))?;
                }
                report_step(report, Report::Nodes);
                agents_wait = false;
            }
            Outcome::Ready => {}
            Outcome::FailedAtStart { name, reason } => {
                anyhow::bail!("{name} does not start: {reason}")
            }
            Outcome::Ended => return Ok(()),
        }
    }
}

fn report_step(to: &mut File, step: Report) {
    tracing::info!(?step, "reached");
    step.send(to);
}

fn set_up_network(spec: &Spec) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .context("cannot make a runtime for netlink")?;
    runtime.block_on(async {
        network::up().await?;
        for (index, name) in spec.node_names() {
            network::add_node(index, &node_namespace(&name)).await?;
        }
        anyhow::Ok(())
    })
}

fn node_namespace(name: &str) -> PathBuf {
    PathBuf::from(RUN_DIR).join("nodes").join(name)
}

fn control(spec: &Spec, api: std::os::fd::OwnedFd) -> Child {
    let address = if spec.isolated() {
        names::CONTROL_ADDRESS
    } else {
        Ipv4Addr::LOCALHOST
    };
    // Outside namespaces the inner addresses belong to everybody: any free port will do, nobody there asks for it.
    let port = |port: u16| if spec.isolated() { port } else { 0 };
    let mut arguments = vec![
        "control".to_owned(),
        format!("--data-dir={}", spec.data_dir.display()),
        format!("--listen={address}:{}", port(names::PORT_API)),
        format!("--push-listen={address}:{}", port(names::PORT_PUSH)),
        format!("--webhook-listen={address}:{}", port(names::PORT_WEBHOOK)),
        format!("--cert-ttl={}ms", spec.cert_ttl.as_millis()),
        "--die-with-parent".to_owned(),
    ];
    arguments.extend(spec.trace.iter().cloned());
    arguments.extend(
        spec.edge_addresses
            .iter()
            .map(|a| format!("--edge-address={a}")),
    );
    if spec.isolated() {
        arguments.push("--with-edge".to_owned());
    }
    Child::new("control", arguments, log_path(spec, "control"))
        .handing("--api-fd", api)
        .says_when_ready()
}

fn agent(spec: &Spec, index: u8, name: &str) -> Child {
    let arguments = vec![
        "node".to_owned(),
        format!("--name={name}"),
        format!("--index={index}"),
        format!(
            "--kubeconfig={}",
            spec.data_dir
                .join(format!("kubeconfigs/{name}.kubeconfig"))
                .display()
        ),
        format!("--data-dir={}", spec.data_dir.display()),
        format!("--address={}", network::node_address(index)),
        format!("--run-dir={RUN_DIR}"),
        format!("--cgroup-parent={}", spec.cgroup),
    ];
    Child::new(name, arguments, log_path(spec, name)).inside(node_namespace(name))
}

fn log_path(spec: &Spec, name: &str) -> PathBuf {
    spec.data_dir.join("logs").join(format!("{name}.log"))
}
