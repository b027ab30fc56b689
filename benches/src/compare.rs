//! The edge beside its peers: nginx, HAProxy, hyper and pingora with the same hosts, the same certificate and the same origin,
//! one worker each. What is compared is the CPU that a request costs the proxy, read from /proc; rounds go over the proxies in
//! turn, so that a change of the machine's mood meets all of them.
//!
//! Proxies share one core, load generators another; the origin has a third, or shares with them where there is none.
//! Everything is on 127.0.0.0/8. Run it with
//! `benches/compare.sh`, which builds and installs what it needs.

mod client;
mod figure;
mod http2;
mod load;
mod mesh;
pub(crate) mod origin;
pub(crate) mod paced;
pub(crate) mod peer;
mod plot;
mod report;
pub(crate) mod site;
mod strace;
mod tools;
mod workload;

use std::cell::{Cell, RefCell};
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::Pid;

use crate::probe::Probe;
use figure::Results;
use mesh::Mesh;
use origin::Origin;
pub(crate) use origin::{SUBCOMMAND as ORIGIN, run as serve_origin};
use peer::{Kind, LOAD_CORE, Peer, Programs};
use report::Report;
use site::Site;
use workload::{Bench, SETTLING, Workload};

/// Ten thousand connections to a proxy, as many from it, and some.
const DESCRIPTORS: u64 = 65_536;
/// More rounds tell nothing new of memory, and each takes half a minute.
const MEMORY_ROUNDS_MAX: usize = 3;

/// What the command line asks for.
struct Plan {
    rounds: usize,
    duration: Duration,
    workloads: Vec<Workload>,
    /// And the sidecars.
    mesh: bool,
    /// Into docs/benchmarks, not only to standard output.
    write: bool,
}

pub(crate) fn run(arguments: impl Iterator<Item = String>) -> anyhow::Result<()> {
    let plan = Plan::parse(arguments)?;
    let programs = Programs::of_environment()?;
    // Before this process keeps to one core.
    let machine = crate::process::machine();
    let origin_core = peer::origin_core();
    stay_on_load_core()?;
    raise_descriptors()?;
    let origin = Origin::start(origin_core)?;
    let site = Site::new(origin.address)?;
    let bench = Bench {
        runtime: tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("a runtime")?,
        tls: client::tls(&site.certificate_pem, "http/1.1")?,
        tls_http2: client::tls(&site.certificate_pem, "h2")?,
        duration: plan.duration,
        pace: Cell::new(None),
        notes: RefCell::default(),
    };
    let mut comparison = Comparison {
        bench,
        site,
        programs,
        origin_core,
        results: Results::default(),
    };
    comparison.run(&plan)?;
    let report = Report {
        machine,
        versions: comparison.versions()?,
        rounds: plan.rounds,
        seconds: plan.duration.as_secs(),
        notes: comparison.bench.notes.take(),
        results: comparison.results,
    };
    let text = report.to_string();
    std::io::stdout().write_all(text.as_bytes())?;
    if plan.write {
        write(&report, &text)?;
    }
    match report.results.failures.len() {
        0 => Ok(()),
        failures => bail!("{failures} measurements failed"),
    }
}

impl Plan {
    fn parse(mut arguments: impl Iterator<Item = String>) -> anyhow::Result<Self> {
        let mut plan = Self {
            rounds: 5,
            duration: Duration::from_secs(5),
            workloads: Workload::ALL.to_vec(),
            mesh: true,
            write: false,
        };
        let keys = Workload::ALL.into_iter().map(Workload::key);
        let keys: Vec<&str> = keys.chain([mesh::KEY]).collect();
        let usage = format!(
            "usage: compare.sh [--rounds N] [--seconds S] [--only {}] [--meshgate PATH] [--write]",
            keys.join("|")
        );
        while let Some(name) = arguments.next() {
            if name == "--write" {
                plan.write = true;
                continue;
            }
            let value = arguments.next().with_context(|| usage.clone())?;
            let number = || {
                let number = value.parse::<u64>();
                number.with_context(|| format!("{name} {value:?} is not a number"))
            };
            match name.as_str() {
                "--rounds" => plan.rounds = number()?.clamp(1, 100) as usize,
                "--seconds" => plan.duration = Duration::from_secs(number()?.clamp(1, 600)),
                "--only" if keys.contains(&value.as_str()) => {
                    plan.workloads.retain(|workload| workload.key() == value);
                    plan.mesh = value == mesh::KEY;
                }
                _ => bail!("{usage}"),
            }
        }
        Ok(plan)
    }
}

/// This thread and all that are started from now on.
pub(crate) fn stay_on_load_core() -> anyhow::Result<()> {
    let mut cores = CpuSet::new();
    cores.set(LOAD_CORE)?;
    sched_setaffinity(Pid::from_raw(0), &cores)
        .context("load and proxies need a core each: this machine has one")
}

/// How many there are now.
pub(crate) fn raise_descriptors() -> anyhow::Result<u64> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let wanted = hard.max(DESCRIPTORS);
    if setrlimit(Resource::RLIMIT_NOFILE, wanted, wanted).is_ok() {
        return Ok(wanted);
    }
    // Only root may have more than that.
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).context("raising open files")?;
    Ok(hard)
}

struct Comparison {
    bench: Bench,
    site: Site,
    programs: Programs,
    origin_core: usize,
    results: Results,
}

impl Comparison {
    fn run(&mut self, plan: &Plan) -> anyhow::Result<()> {
        let workloads = plan.workloads.iter().copied();
        let (idle, busy): (Vec<_>, Vec<_>) = workloads
            .partition(|workload| matches!(workload, Workload::Memory | Workload::MemoryHttp2));
        for workload in idle {
            self.memory(workload, plan.rounds)?;
        }
        if !busy.is_empty() {
            self.loads(&busy, plan.rounds)?;
        }
        if plan.mesh {
            self.mesh(plan.rounds)?;
        }
        Ok(())
    }

    /// Of proxies that have done nothing yet.
    fn memory(&mut self, workload: Workload, rounds: usize) -> anyhow::Result<()> {
        for round in 0..rounds.min(MEMORY_ROUNDS_MAX) {
            progress(workload.key(), round)?;
            let peers = self.start()?;
            std::thread::sleep(SETTLING);
            self.measure(workload, &peers);
        }
        Ok(())
    }

    fn loads(&mut self, workloads: &[Workload], rounds: usize) -> anyhow::Result<()> {
        let peers = self.start()?;
        for workload in workloads.iter().copied() {
            self.warm_up(workload, &peers);
            for round in 0..rounds {
                progress(workload.key(), round)?;
                self.measure(workload, &peers);
            }
        }
        self.note_lost_records(&peers)
    }

    fn mesh(&mut self, rounds: usize) -> anyhow::Result<()> {
        let edge = Peer::start(Kind::Meshgate, &self.programs, &self.site)?;
        let mesh = match Mesh::start(&self.bench, &self.programs, self.origin_core, &edge) {
            Ok(mesh) => mesh,
            Err(error) => {
                self.results.failed(mesh::KEY, &error);
                return Ok(());
            }
        };
        for round in 0..rounds {
            progress(mesh::KEY, round)?;
            match mesh.measure() {
                Ok(values) => values.into_iter().for_each(|(figure, value)| {
                    self.results.push(figure, Kind::Meshgate, value);
                }),
                Err(error) => self.results.failed(mesh::KEY, &error),
            }
        }
        let lost = mesh.lost_records()?.to_string();
        let mut notes = self.bench.notes.borrow_mut();
        notes.insert("Lines that the sidecars' access logs lost".into(), lost);
        Ok(())
    }

    fn start(&self) -> anyhow::Result<Vec<Peer>> {
        let kinds = Kind::ALL.into_iter();
        kinds
            .map(|kind| Peer::start(kind, &self.programs, &self.site))
            .collect()
    }

    fn warm_up(&mut self, workload: Workload, peers: &[Peer]) {
        for peer in peers {
            let result = workload.warm_up(&self.bench, peer);
            self.keep_failure(workload, peer, result);
        }
        if workload == Workload::Latency
            && let Some(nginx) = peers.iter().find(|peer| peer.kind == Kind::Nginx)
        {
            let pace = self.bench.find_pace(nginx).map(|pace| {
                let mut notes = self.bench.notes.borrow_mut();
                notes.insert(
                    "Latency was measured at".into(),
                    format!("{pace:.0} requests/s"),
                );
            });
            self.keep_failure(workload, nginx, pace);
        }
    }

    /// One round. What fails on one proxy is told in the end; the others go on.
    fn measure(&mut self, workload: Workload, peers: &[Peer]) {
        for peer in peers {
            let values = workload.run(&self.bench, peer, &self.site);
            let values = values.and_then(|values| peer.forget_log().map(|()| values));
            for (figure, value) in self
                .keep_failure(workload, peer, values)
                .into_iter()
                .flatten()
            {
                self.results.push(figure, peer.kind, value);
            }
        }
    }

    fn keep_failure<T>(
        &mut self,
        workload: Workload,
        peer: &Peer,
        result: anyhow::Result<T>,
    ) -> Option<T> {
        let failed = |error| {
            let what = format!("{}, {}", peer.kind, workload.key());
            self.results.failed(&what, &error);
        };
        result.map_err(failed).ok()
    }

    /// A log that is full drops lines, which would be cheap and no merit.
    fn note_lost_records(&self, peers: &[Peer]) -> anyhow::Result<()> {
        for metrics in peers.iter().filter_map(|peer| peer.metrics) {
            let page = Probe::new(metrics, "metrics").ask("/metrics")?.body;
            let lost = page
                .lines()
                .find(|line| line.starts_with("meshgate_access_records_lost"));
            let lost = lost.and_then(|line| line.split(' ').nth(1));
            let mut notes = self.bench.notes.borrow_mut();
            let about = "Lines that Meshgate's access log lost".to_owned();
            notes.insert(about, lost.unwrap_or("unknown").to_owned());
        }
        Ok(())
    }

    fn versions(&self) -> anyhow::Result<Vec<String>> {
        let proxies = Kind::ALL.into_iter();
        let mut versions: Vec<String> = proxies
            .map(|kind| self.programs.version(kind))
            .collect::<anyhow::Result<_>>()?;
        versions.extend(tools::versions()?);
        Ok(versions)
    }
}

/// To standard error, so that whoever waits knows for what.
fn progress(workload: &str, round: usize) -> std::io::Result<()> {
    writeln!(std::io::stderr(), "{workload}, round {}", round + 1)
}

fn write(report: &Report, text: &str) -> anyhow::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/benchmarks");
    std::fs::create_dir_all(&folder).context("docs/benchmarks")?;
    std::fs::write(folder.join("comparison.md"), text).context("comparison.md")?;
    std::fs::write(folder.join("comparison.svg"), plot::svg(&report.results))
        .context("comparison.svg")
}
