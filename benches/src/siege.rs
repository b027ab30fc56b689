//! What everybody else notices while an edge is besieged: slow clients, floods and idle connections at once. A round is a
//! quiet measurement, the siege with one in its midst, and one after it, so that a change of the machine's mood meets all.
//!
//! The edge has a core for itself, as in the comparison. Who behaves and the origin share the other with the attackers, and
//! come before them: those get what is left (SCHED_IDLE). Run it with `benches/siege.sh`, which builds what it needs.

mod besieger;
mod report;

use std::io::Write as _;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};

pub(crate) use besieger::{SUBCOMMAND as BESIEGER, run as besiege};

use crate::compare::origin::{Origin, SMALL};
use crate::compare::paced::Pace;
use crate::compare::peer::{Kind, Peer, Programs, origin_core};
use crate::compare::site::{HOST, Site};
use crate::compare::{raise_descriptors, stay_on_load_core};
use crate::figures::Series;
use crate::probe::Probe;
use crate::process;
use besieger::Besieger;
use report::Report;

const USAGE: &str = "usage: siege.sh [--rounds N] [--seconds S] [--rate REQUESTS_PER_S] [--idle CONNECTIONS] \
                     [--memory MIB] [--meshgate PATH]";
/// Connections of those who behave.
const CONNECTIONS: usize = 64;
/// Before what counts.
const WARM_UP: Duration = Duration::from_millis(500);
/// Connections of an edge for everybody but the idle: attackers, those who behave, and endpoints.
const OTHERS: u64 = 2_500;
/// What a listener takes unless it is told otherwise.
const CONNECTIONS_USUAL: u64 = 10_000;
/// How long the edge may take to be as before.
const RECOVERING: Duration = Duration::from_secs(60);

/// What the command line asks for.
#[derive(Debug)]
struct Plan {
    rounds: usize,
    duration: Duration,
    requests_per_s: f64,
    idle: u64,
    memory_mib: u64,
}

/// What the rounds said.
#[derive(Debug, Default)]
struct Figures {
    before: Latency,
    during: Latency,
    after: Latency,
    /// p99 during to the mean of before and after.
    ratio: Series,
    /// MiB of anonymous memory: what the budget counts.
    memory_before: Series,
    memory_during: Series,
    memory_after: Series,
    /// From the end of the siege until nothing of it is left, in ms.
    recovery: Series,
    /// Of the edge's core, in the measurement's time.
    busy_before: Series,
    busy_during: Series,
}

#[derive(Debug, Default)]
struct Latency {
    p50: Series,
    p99: Series,
    p999: Series,
    /// The generator's own part of it.
    late: Series,
    asked: usize,
}

pub(crate) fn run(arguments: impl Iterator<Item = String>) -> anyhow::Result<()> {
    let mut plan = Plan::parse(arguments)?;
    let programs = Programs::of_environment()?;
    // Before this process keeps to one core.
    let (machine, origin_core) = (process::machine(), origin_core());
    stay_on_load_core()?;
    let wanted = plan.idle;
    plan.idle = wanted.min(idle_max(raise_descriptors()?));
    let origin = Origin::start(origin_core)?;
    let site = Site::new(origin.address)?;
    let edge = Peer::start_with(Kind::Meshgate, &programs, &site, &plan.limits())?;
    let mut bench = Bench {
        plan,
        edge,
        figures: Figures::default(),
        attacks: Vec::new(),
    };
    bench.quiet()?;
    for round in 0..bench.plan.rounds {
        writeln!(std::io::stderr(), "round {}", round + 1)?;
        bench.round()?;
    }
    let report = Report {
        machine,
        version: programs.version(Kind::Meshgate)?,
        wanted,
        refused: bench.refused()?,
        plan: bench.plan,
        figures: bench.figures,
        attacks: bench.attacks,
    };
    std::io::stdout().write_all(report.to_string().as_bytes())?;
    Ok(())
}

/// An edge keeps a quarter of its descriptors for endpoints and files.
fn idle_max(descriptors: u64) -> u64 {
    (descriptors / 4 * 3).saturating_sub(OTHERS)
}

impl Plan {
    fn parse(mut arguments: impl Iterator<Item = String>) -> anyhow::Result<Self> {
        let mut plan = Self {
            rounds: 5,
            duration: Duration::from_secs(3),
            requests_per_s: 2_000.0,
            idle: 20_000,
            memory_mib: 512,
        };
        while let Some(name) = arguments.next() {
            let value = arguments.next().context(USAGE)?;
            let number = value.parse::<u64>();
            let number = number.with_context(|| format!("{name} {value:?} is not a number"))?;
            match name.as_str() {
                "--rounds" => plan.rounds = number.clamp(1, 100) as usize,
                "--seconds" => plan.duration = Duration::from_secs(number.clamp(1, 20)),
                "--rate" => plan.requests_per_s = number.clamp(100, 100_000) as f64,
                "--idle" => plan.idle = number.clamp(2, 1_000_000),
                "--memory" => plan.memory_mib = number.clamp(16, 1 << 20),
                _ => bail!(USAGE),
            }
        }
        Ok(plan)
    }
}

impl Plan {
    /// Of the edge; the usual ones where they are enough.
    fn limits(&self) -> Vec<String> {
        let mut arguments = vec!["--memory".to_owned(), format!("{}Mi", self.memory_mib)];
        // Half come by HTTP, half by HTTPS.
        let connections = self.idle / 2 + OTHERS;
        if connections > CONNECTIONS_USUAL {
            arguments.extend(["--connections".to_owned(), connections.to_string()]);
        }
        arguments
    }
}

struct Bench {
    plan: Plan,
    edge: Peer,
    figures: Figures,
    /// What each siege came to, in the besieger's words.
    attacks: Vec<Vec<String>>,
}

/// One measurement.
struct Measured {
    p99: f64,
    busy: f64,
}

impl Bench {
    fn round(&mut self) -> anyhow::Result<()> {
        let before = self.measure(|figures| &mut figures.before)?;
        self.figures.busy_before.push(before.busy);
        self.figures.memory_before.push(self.memory_mib()?);
        let standing = self.open_connections()?;

        let besieger = Besieger::lay(&self.edge.listens, self.plan.idle)?;
        let during = self.measure(|figures| &mut figures.during)?;
        self.figures.busy_during.push(during.busy);
        self.figures.memory_during.push(self.memory_mib()?);
        self.attacks.push(besieger.lift()?);

        let lifted = Instant::now();
        while self.open_connections()? > standing {
            ensure!(
                lifted.elapsed() < RECOVERING,
                "connections of the siege are still open"
            );
        }
        let recovery = lifted.elapsed().as_secs_f64() * 1e3;
        self.figures.recovery.push(recovery);
        let after = self.measure(|figures| &mut figures.after)?;
        self.figures.memory_after.push(self.memory_mib()?);
        let ratio = during.p99 / ((before.p99 + after.p99) / 2.0);
        self.figures.ratio.push(ratio);
        Ok(())
    }

    fn measure(
        &mut self,
        of: impl FnOnce(&mut Figures) -> &mut Latency,
    ) -> anyhow::Result<Measured> {
        let (cpu, began) = (self.edge.cpu()?, Instant::now());
        let latencies = self.pace().run()?;
        let busy = (self.edge.cpu()? - cpu).as_secs_f64() / began.elapsed().as_secs_f64();
        let p99 = latencies.answered.quantile(0.99);
        let latency = of(&mut self.figures);
        latency.p50.push(latencies.answered.quantile(0.5));
        latency.p99.push(p99);
        latency.p999.push(latencies.answered.quantile(0.999));
        latency.late.push(latencies.late.quantile(0.99));
        latency.asked += latencies.answered.iter().count();
        Ok(Measured {
            p99,
            busy: busy * 100.0,
        })
    }

    /// So that connections to the origin and caches are there.
    fn quiet(&self) -> anyhow::Result<()> {
        self.pace().run().map(drop)
    }

    fn pace(&self) -> Pace {
        Pace {
            address: self.edge.listens.http,
            host: HOST.to_owned(),
            path: SMALL,
            connections: CONNECTIONS,
            requests_per_s: self.plan.requests_per_s,
            warm_up: WARM_UP,
            duration: self.plan.duration,
        }
    }

    fn memory_mib(&self) -> anyhow::Result<f64> {
        Ok(process::anonymous_kib(self.edge.pid())? as f64 / 1024.0)
    }

    fn metrics(&self) -> anyhow::Result<String> {
        let metrics: SocketAddr = self.edge.metrics.context("it has metrics")?;
        Ok(Probe::new(metrics, "metrics").ask("/metrics")?.body)
    }

    fn open_connections(&self) -> anyhow::Result<f64> {
        let page = self.metrics()?;
        let series = page
            .lines()
            .filter(|line| line.starts_with("meshgate_connections_open"));
        let values = series.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok());
        Ok(values.sum())
    }

    /// Connections that the edge refused, as its metrics say it.
    fn refused(&self) -> anyhow::Result<Vec<String>> {
        let page = self.metrics()?;
        let series = page
            .lines()
            .filter_map(|line| line.strip_prefix("meshgate_connections_refused_total"));
        Ok(series.map(str::to_owned).collect())
    }
}
