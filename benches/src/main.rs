//! Drives the edge of a cluster of its own and prints what it costs: requests/s, latency and CPU a request under `wrk` and
//! `h2load`; then start-up, memory, and how long a change takes to be enforced. Figures are medians, with the range.
//!
//! `compare` as first argument compares the edge with its peers instead: see [`compare`]. `siege` besieges it: see
//! [`siege`].
//!
//! Everything runs on one machine, load generators included, so the figures compare with each other and with an earlier
//! run on the same machine. Run it with `benches/edge.sh`, which builds what it needs.

mod cluster;
mod compare;
mod figures;
mod load;
mod probe;
mod process;
mod propagation;
mod siege;

use std::io::Write as _;
use std::time::Duration;

use anyhow::{Context as _, bail};

use crate::cluster::{Cluster, Ports};
use crate::figures::Series;
use crate::load::{Scenario, Tool};

const USAGE: &str =
    "usage: edge.sh [--rounds N] [--seconds S] [--only start|memory|load|propagation]";

/// What the command line asks for.
struct Plan {
    rounds: usize,
    seconds: u64,
    /// One part instead of all.
    only: Option<String>,
}

impl Plan {
    fn wants(&self, part: &str) -> bool {
        self.only.as_deref().is_none_or(|only| only == part)
    }
}

const SCENARIOS: [Scenario; 5] = [
    Scenario {
        name: "HTTP/1 keep-alive, 1 KiB",
        tool: Tool::Wrk { connections: 64 },
        host: "bench.test",
        path: "/bytes/1024",
    },
    Scenario {
        name: "HTTP/1 keep-alive, 64 KiB",
        tool: Tool::Wrk { connections: 64 },
        host: "bench.test",
        path: "/bytes/65536",
    },
    Scenario {
        name: "HTTP/1 over TLS, 1 KiB",
        tool: Tool::H2load {
            connections: 64,
            streams: 1,
            http1: true,
        },
        host: "bench.test",
        path: "/bytes/1024",
    },
    Scenario {
        name: "HTTP/2 over TLS, 1 KiB",
        // Enough that none comes to its last request: h2load does not connect again.
        tool: Tool::H2load {
            connections: 64,
            streams: 8,
            http1: false,
        },
        host: "bench.test",
        path: "/bytes/1024",
    },
    Scenario {
        name: "HTTP/1 to a meshed pod (mTLS), 1 KiB",
        tool: Tool::Wrk { connections: 64 },
        host: "mesh.test",
        path: "/bytes/1024",
    },
];

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1).peekable();
    match arguments.peek().map(String::as_str) {
        Some("compare") => compare::run(arguments.skip(1)),
        Some(compare::ORIGIN) => compare::serve_origin(arguments.skip(1)),
        Some("siege") => siege::run(arguments.skip(1)),
        Some(siege::BESIEGER) => siege::besiege(arguments.skip(1)),
        _ => edge(plan(arguments)?),
    }
}

#[tokio::main]
async fn edge(plan: Plan) -> anyhow::Result<()> {
    let out = &mut std::io::stdout();
    // Two providers are compiled in (kube's and ours are the same, but rustls cannot know).
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let ports = Ports::free().context("free ports")?;

    writeln!(out, "{}\n", process::machine())?;
    if plan.wants("start") {
        start_up(&plan, ports, out)?;
    }
    if plan.only.as_deref() == Some("start") {
        return Ok(());
    }
    let cluster = Cluster::start(ports, &[])?;
    let client = cluster.client().await?;
    cluster::apply(&client, &cluster::manifest()?).await?;
    for scenario in &SCENARIOS {
        probe::until(ports.http, scenario.host, "/health", |answer| {
            answer.status == 200
        })?;
    }
    if plan.wants("memory") {
        memory(&cluster, out)?;
    }
    if plan.wants("load") {
        load(&plan, &cluster, ports, out)?;
    }
    if plan.wants("propagation") {
        propagation::measure(&client, ports.http, plan.rounds * 10, out).await?;
    }
    Ok(())
}

fn plan(mut arguments: impl Iterator<Item = String>) -> anyhow::Result<Plan> {
    let mut plan = Plan {
        rounds: 5,
        seconds: 5,
        only: None,
    };
    while let Some(name) = arguments.next() {
        let value = arguments.next().context(USAGE)?;
        let number = || {
            let number = value.parse::<u64>();
            number.with_context(|| format!("{name} {value:?} is not a number"))
        };
        match name.as_str() {
            "--rounds" => plan.rounds = number()?.clamp(1, 100) as usize,
            "--seconds" => plan.seconds = number()?.clamp(1, 600),
            "--only" if ["start", "memory", "load", "propagation"].contains(&value.as_str()) => {
                plan.only = Some(value);
            }
            _ => bail!(USAGE),
        }
    }
    Ok(plan)
}

/// `up` until everything is ready, and until the first 200 through the edge: on empty data with the demo, and again with
/// the data of before.
fn start_up(plan: &Plan, ports: Ports, out: &mut impl std::io::Write) -> anyhow::Result<()> {
    let (mut first, mut ready) = (Series::default(), Series::default());
    let (mut first_again, mut ready_again) = (Series::default(), Series::default());
    for _ in 0..plan.rounds {
        let mut cluster = Cluster::prepare(ports)?;
        let times = cluster.up(&["--demo"], "shop.localhost")?;
        first.push(times.first_answer.as_secs_f64());
        ready.push(times.ready.as_secs_f64());
        cluster.down()?;
        let times = cluster.up(&["--demo"], "shop.localhost")?;
        first_again.push(times.first_answer.as_secs_f64());
        ready_again.push(times.ready.as_secs_f64());
    }
    writeln!(out, "{:<39}{:>20}", "start-up", "seconds")?;
    for (name, series) in [
        ("up --demo to the first 200", first),
        ("up --demo to everything ready", ready),
        ("with data of before: first 200", first_again),
        ("with data of before: everything ready", ready_again),
    ] {
        writeln!(out, "  {name:<37}{series:>20}")?;
    }
    writeln!(out)?;
    Ok(())
}

/// Resident memory of an idle cluster, a process a line.
fn memory(cluster: &Cluster, out: &mut impl std::io::Write) -> anyhow::Result<()> {
    // What start-up needed is given back after 10 s.
    std::thread::sleep(Duration::from_secs(30));
    writeln!(
        out,
        "idle memory                            MiB resident (proportional)"
    )?;
    let mut sum = process::Memory::default();
    for component in cluster.components()? {
        let memory = process::memory(component.pid)?;
        writeln!(out, "  {:<37} {memory}", component.name)?;
        if !component.name.starts_with("sidecar") {
            sum = sum + memory;
        }
    }
    writeln!(out, "  {:<37} {sum}\n", "control + agent + edge")?;
    Ok(())
}

fn load(
    plan: &Plan,
    cluster: &Cluster,
    ports: Ports,
    out: &mut impl std::io::Write,
) -> anyhow::Result<()> {
    let edge = cluster.pid_of("edge")?;
    writeln!(
        out,
        "{:<39}{:>20}{:>22}{:>22}{:>20}",
        "edge under load", "requests/s", "p50 ms", "p99 ms", "CPU µs/request"
    )?;
    let duration = Duration::from_secs(plan.seconds);
    for scenario in &SCENARIOS {
        let (mut rate, mut p50) = (Series::default(), Series::default());
        let (mut p99, mut cpu) = (Series::default(), Series::default());
        for _ in 0..plan.rounds {
            let before = process::cpu(edge)?;
            let result = scenario.run(ports, duration)?;
            let used = process::cpu(edge)? - before;
            rate.push(result.requests as f64 / result.elapsed.as_secs_f64());
            p50.push(result.p50.as_secs_f64() * 1e3);
            p99.push(result.p99.as_secs_f64() * 1e3);
            cpu.push(used.as_secs_f64() * 1e6 / result.requests as f64);
        }
        let name = scenario.name;
        writeln!(out, "  {name:<37}{rate:>20}{p50:>22}{p99:>22}{cpu:>20}")?;
    }
    writeln!(out)?;
    Ok(())
}
