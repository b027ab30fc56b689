//! `meshgate up`: from nothing to a cluster that answers, with a word about each step.

mod client;
mod demo;
mod host;
mod progress;
mod ready;

use std::io::BufReader;
use std::os::fd::AsFd;
use std::process::{Child, Command, ExitCode, Stdio};

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::runtime::Runtime;
use tokio::signal::unix::{self, SignalKind};

use crate::args::UpArgs;
use crate::cluster::{Cluster, Lock, State, bequeath, leftovers};
use crate::supervisor::spec::{Report, Spec};
use host::Sockets;
use progress::Progress;

pub(crate) fn run(args: &UpArgs) -> anyhow::Result<ExitCode> {
    let cluster = Cluster::place(&args.cluster)?;
    let mut progress = Progress::start();
    let lock = host::take_data_dir(&cluster, args.fresh)?;
    let sockets = Sockets::open(args)?;
    progress.done("sockets");
    host::certificates(&cluster, args, &sockets)?;
    progress.done("certificates");
    let (mut keeper, reports) = start(&cluster, args, &sockets, &lock)?;
    let state = State {
        name: cluster.name.clone(),
        keeper_pid: i32::try_from(keeper.id())?,
        api: sockets.api_address,
        http: sockets.http_address(),
        https: sockets.https_address(),
        nodes: args.nodes,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started: jiff::Timestamp::now(),
    };
    state.write(&cluster.data_dir)?;
    cluster.remember()?;
    // From here on the keeper holds the lock and the supervisor the sockets.
    drop((lock, sockets));
    let outcome = wait_for(&cluster, args, &state, reports, &mut progress)
        .and_then(|()| (!args.detach).then(Asked::listen).transpose());
    let asked = match outcome {
        Ok(asked) => asked,
        Err(error) => {
            end(&mut keeper)?;
            return Err(error);
        }
    };
    progress.summary(&cluster, args, &state);
    match asked {
        None => Ok(ExitCode::SUCCESS),
        Some(asked) => stay(&cluster, &mut keeper, asked),
    }
}

/// Starts the keeper; what it reports comes through the pipe.
fn start(
    cluster: &Cluster,
    args: &UpArgs,
    sockets: &Sockets,
    lock: &Lock,
) -> anyhow::Result<(Child, BufReader<std::io::PipeReader>)> {
    let (reports, report) = std::io::pipe().context("cannot make a pipe")?;
    let lock = lock.try_clone()?;
    let hand = |socket: &Option<std::net::TcpListener>| socket.as_ref().map(bequeath).transpose();
    let spec = Spec {
        name: cluster.name.clone(),
        data_dir: cluster.data_dir.clone(),
        cgroup: cluster.cgroup(),
        nodes: args.nodes,
        cert_ttl: args.cert_ttl,
        trace: args.trace.to_arguments(),
        foreground: !args.detach,
        lock: bequeath(lock.as_fd())?,
        report: bequeath(&report)?,
        api: bequeath(&sockets.api)?,
        http: hand(&sockets.http)?,
        https: hand(&sockets.https)?,
        edge_addresses: sockets.edge_addresses(),
    };
    let log = host::open_log(cluster)?;
    use std::os::unix::process::CommandExt;
    let keeper = Command::new("/proc/self/exe")
        .args(["keeper", &spec.to_argument()])
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        // Ctrl-C is for `up`, which ends the cluster in order.
        .process_group(0)
        .spawn()
        .context("cannot start the cluster's process")?;
    Ok((keeper, BufReader::new(reports)))
}

fn wait_for(
    cluster: &Cluster,
    args: &UpArgs,
    state: &State,
    mut reports: BufReader<std::io::PipeReader>,
    progress: &mut Progress,
) -> anyhow::Result<()> {
    let last = if args.nodes == 0 {
        Report::Api
    } else {
        Report::Nodes
    };
    loop {
        let report = Report::receive(&mut reports)?;
        match &report {
            None => bail!(
                "the cluster ended while starting; its log: {}",
                cluster.logs().join("cluster.log").display()
            ),
            Some(Report::Failed(why)) => bail!("{why}"),
            Some(Report::Network) => progress.done("namespaces"),
            Some(Report::Api) => progress.done("API server"),
            Some(Report::Nodes) => {}
        }
        if report.as_ref() == Some(&last) {
            break;
        }
    }
    runtime()?.block_on(ready::wait(cluster, args, state, progress))
}

/// What ends a cluster in the foreground. Listens before anybody is told that the cluster is ready: who is told may want it to
/// end at once.
struct Asked {
    runtime: Runtime,
    interrupt: unix::Signal,
    terminate: unix::Signal,
    child: unix::Signal,
}

impl Asked {
    fn listen() -> anyhow::Result<Self> {
        let runtime = runtime()?;
        let entered = runtime.enter();
        let [interrupt, terminate, child] = [
            SignalKind::interrupt(),
            SignalKind::terminate(),
            SignalKind::child(),
        ]
        .map(|kind| unix::signal(kind).context("cannot listen to signals"));
        drop(entered);
        Ok(Self {
            runtime,
            interrupt: interrupt?,
            terminate: terminate?,
            child: child?,
        })
    }

    /// True: by somebody. False: the keeper ended by itself.
    fn wait(mut self, keeper: &mut Child) -> anyhow::Result<bool> {
        self.runtime.block_on(async {
            loop {
                tokio::select! {
                    _ = self.interrupt.recv() => return Ok(true),
                    _ = self.terminate.recv() => return Ok(true),
                    _ = self.child.recv() => if keeper.try_wait()?.is_some() { return Ok(false) },
                }
            }
        })
    }
}

fn runtime() -> anyhow::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot make a runtime")
}

/// In the foreground until told to end.
fn stay(cluster: &Cluster, keeper: &mut Child, asked: Asked) -> anyhow::Result<ExitCode> {
    let asked = asked.wait(keeper)?;
    if !asked {
        bail!(
            "the cluster ended by itself; its log: {}",
            cluster.logs().join("cluster.log").display()
        );
    }
    end(keeper)?;
    leftovers::remove_cgroups(&cluster.cgroup())?;
    progress::say(&format!(
        "stopped; the data stays in {}",
        cluster.data_dir.display()
    ));
    Ok(ExitCode::SUCCESS)
}

fn end(keeper: &mut Child) -> anyhow::Result<()> {
    let pid = Pid::from_raw(i32::try_from(keeper.id())?);
    if keeper.try_wait()?.is_none() {
        kill(pid, Signal::SIGTERM).context("cannot end the cluster")?;
    }
    keeper.wait().context("cannot wait for the cluster's end")?;
    Ok(())
}
