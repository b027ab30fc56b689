//! What everybody else notices while an edge is besieged: slow clients, floods and idle connections at once. A round is a
//! quiet measurement, the siege with one in its midst, and one after it, so that a change of the machine's mood meets all.
//!
//! The edge has a core for itself, as in the comparison. Who behaves and the origin share the other with the attackers, and
//! come before them: those get what is left (SCHED_IDLE). Run it with `benches/siege.sh`, which builds what it needs.
//!
//! Where one process may not open as many descriptors as there are idle connections, further edges on the same core, as
//! replicas would be, hold the rest of them. Who behaves asks the first, which all attackers besiege.

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
use besieger::{Besiege, Besieger};
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
    let plan = Plan::parse(arguments)?;
    let programs = Programs::of_environment()?;
    // Before this process keeps to one core.
    let (machine, origin_core) = (process::machine(), origin_core());
    stay_on_load_core()?;
    let share = plan.idle.min(idle_max(raise_descriptors()?));
    let origin = Origin::start(origin_core)?;
    let limits = plan.limits(share);
    let edges = shares(plan.idle, share)
        .map(|idle| Edge::start(idle, &programs, &origin, &limits))
        .collect::<anyhow::Result<_>>()?;
    let mut bench = Bench {
        plan,
        edges,
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
        edges: bench.edges.len(),
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

/// Idle connections of each edge.
fn shares(idle: u64, share: u64) -> impl Iterator<Item = u64> {
    (0..idle.div_ceil(share)).map(move |index| share.min(idle - index * share))
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
    /// Of an edge with so many idle connections; the usual ones where they are enough.
    fn limits(&self, idle: u64) -> Vec<String> {
        let mut arguments = vec!["--memory".to_owned(), format!("{}Mi", self.memory_mib)];
        // Half come by HTTP, half by HTTPS.
        let connections = idle / 2 + OTHERS;
        if connections > CONNECTIONS_USUAL {
            arguments.extend(["--connections".to_owned(), connections.to_string()]);
        }
        arguments
    }
}

struct Bench {
    plan: Plan,
    /// The first is that of those who behave.
    edges: Vec<Edge>,
    figures: Figures,
    /// What each siege came to, in the besieger's words.
    attacks: Vec<Vec<String>>,
}

/// One of them, on the core that they share.
struct Edge {
    peer: Peer,
    /// Connections that it holds in a siege.
    idle: u64,
    /// Its files, for as long as it runs.
    _site: Site,
}

impl Edge {
    fn start(
        idle: u64,
        programs: &Programs,
        origin: &Origin,
        limits: &[String],
    ) -> anyhow::Result<Self> {
        let site = Site::new(origin.address)?;
        let peer = Peer::start_with(Kind::Meshgate, programs, &site, limits)?;
        Ok(Self {
            peer,
            idle,
            _site: site,
        })
    }

    fn metrics(&self) -> anyhow::Result<String> {
        let metrics: SocketAddr = self.peer.metrics.context("it has metrics")?;
        Ok(Probe::new(metrics, "metrics").ask("/metrics")?.body)
    }
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

        let mut besiegers = Vec::new();
        for edge in &self.edges {
            let by = match besiegers.is_empty() {
                true => Besiege::ByAll,
                false => Besiege::ByIdle,
            };
            besiegers.push(Besieger::lay(&edge.peer.listens, edge.idle, by)?);
        }
        let during = self.measure(|figures| &mut figures.during)?;
        self.figures.busy_during.push(during.busy);
        self.figures.memory_during.push(self.memory_mib()?);
        let lifted = besiegers.into_iter().map(Besieger::lift);
        let attacks = lifted.collect::<anyhow::Result<Vec<_>>>()?;
        self.attacks.push(attacks.concat());

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
        let (cpu, began) = (self.cpu()?, Instant::now());
        let latencies = self.pace().run()?;
        let busy = (self.cpu()? - cpu).as_secs_f64() / began.elapsed().as_secs_f64();
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
            address: self.edges[0].peer.listens.http,
            host: HOST.to_owned(),
            path: SMALL,
            connections: CONNECTIONS,
            requests_per_s: self.plan.requests_per_s,
            warm_up: WARM_UP,
            duration: self.plan.duration,
        }
    }

    /// Of all edges.
    fn cpu(&self) -> anyhow::Result<Duration> {
        self.edges.iter().map(|edge| edge.peer.cpu()).sum()
    }

    /// Of the edge with the most: each has a budget of its own.
    fn memory_mib(&self) -> anyhow::Result<f64> {
        let mut most = 0;
        for edge in &self.edges {
            most = most.max(process::anonymous_kib(edge.peer.pid())?);
        }
        Ok(most as f64 / 1024.0)
    }

    /// Of all edges.
    fn open_connections(&self) -> anyhow::Result<f64> {
        let mut open = 0.0;
        for edge in &self.edges {
            let page = edge.metrics()?;
            let series = page
                .lines()
                .filter(|line| line.starts_with("meshgate_connections_open"));
            let values = series.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok());
            open += values.sum::<f64>();
        }
        Ok(open)
    }

    /// Connections that the besieged edge refused, as its metrics say it.
    fn refused(&self) -> anyhow::Result<Vec<String>> {
        let page = self.edges[0].metrics()?;
        let series = page
            .lines()
            .filter_map(|line| line.strip_prefix("meshgate_connections_refused_total"));
        Ok(series.map(str::to_owned).collect())
    }
}
