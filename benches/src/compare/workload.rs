//! What is done to every proxy, and what is read from it meanwhile.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use rustls::ClientConfig;
use tokio::runtime::Runtime;

use super::client::{self, Connection, Target as Asked};
use super::figure::{Figure, Target};
use super::origin::{LARGE, LARGE_BYTES, SMALL};
use super::paced::Pace;
use super::peer::{Kind, Peer};
use super::site::{HOST, Site};
use super::strace::Count;
use super::tools::Tool;

/// Before the first round, so that connections to the origin and caches are there.
const WARM_UP: Duration = Duration::from_secs(1);
/// Connections of the loads that keep a proxy busy.
const BUSY: u32 = 64;
/// TLS connections whose memory is measured.
const IDLE_TLS: u64 = 1000;
/// Longer than a proxy takes to give back what starting needed; Meshgate does after 10 s.
pub(crate) const SETTLING: Duration = Duration::from_secs(15);
/// Idle connections beside [`BUSY_OF_MANY`] busy ones.
const IDLE: u64 = 9_900;
const BUSY_OF_MANY: u32 = 100;
/// Idle connections are closed by some after a minute.
const BESIDE_IDLE_MAX: Duration = Duration::from_secs(30);
/// Connections that a fixed rate is spread over.
const PACED: usize = 64;

/// One figure or more, measured on one proxy after another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Workload {
    Memory,
    Load(&'static Load),
    Handshake,
    Latency,
    Open,
    SystemCalls,
}

/// As many requests as a tool gets answered.
#[derive(Debug)]
pub(crate) struct Load {
    key: &'static str,
    tool: Tool,
    path: &'static str,
    per: Per,
    cost: Figure,
    rate: Figure,
}

impl PartialEq for Load {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

#[derive(Clone, Copy, Debug)]
enum Per {
    /// µs of CPU.
    Request,
    /// ms of CPU.
    Gib,
}

const PER_REQUEST: &str = "µs CPU/request";
const PER_GIB: &str = "ms CPU/GiB";
const RATE: &str = "requests/s";

const fn figure(name: &'static str, unit: &'static str, target: Target) -> Figure {
    Figure { name, unit, target }
}

static HTTP: Load = Load {
    key: "http",
    tool: Tool::Wrk { connections: BUSY },
    path: SMALL,
    per: Per::Request,
    cost: figure(
        "HTTP/1 kept alive, 1 KiB",
        PER_REQUEST,
        Target::Part(0.85, Kind::Nginx),
    ),
    rate: figure("HTTP/1 kept alive, 1 KiB", RATE, Target::None),
};
static HTTPS: Load = Load {
    key: "https",
    tool: Tool::Tls { connections: BUSY },
    path: SMALL,
    per: Per::Request,
    cost: figure(
        "HTTP/1 in TLS 1.3, 1 KiB",
        PER_REQUEST,
        Target::Part(0.85, Kind::Nginx),
    ),
    rate: figure("HTTP/1 in TLS 1.3, 1 KiB", RATE, Target::None),
};
static HTTP2: Load = Load {
    key: "http2",
    tool: Tool::Http2 {
        connections: 32,
        streams: 10,
    },
    path: SMALL,
    per: Per::Request,
    cost: figure(
        "HTTP/2 in TLS, 10 streams, 1 KiB",
        PER_REQUEST,
        Target::Part(0.90, Kind::Nginx),
    ),
    rate: figure("HTTP/2 in TLS, 10 streams, 1 KiB", RATE, Target::None),
};
static BODIES: Load = Load {
    key: "bodies",
    tool: Tool::Wrk { connections: 32 },
    path: LARGE,
    per: Per::Gib,
    cost: figure(
        "bodies of 64 KiB",
        PER_GIB,
        Target::Part(0.75, Kind::Haproxy),
    ),
    rate: figure("bodies of 64 KiB", RATE, Target::None),
};
static BODIES_TLS: Load = Load {
    key: "bodies-tls",
    tool: Tool::Tls { connections: 32 },
    path: LARGE,
    per: Per::Gib,
    cost: figure(
        "bodies of 64 KiB in TLS",
        PER_GIB,
        Target::Part(0.75, Kind::Haproxy),
    ),
    rate: figure("bodies of 64 KiB in TLS", RATE, Target::None),
};
static HANDSHAKE: Figure = figure(
    "full TLS 1.3 handshake and one request",
    "µs CPU/connection",
    Target::Part(0.50, Kind::Nginx),
);
static HANDSHAKE_RATE: Figure = figure(
    "full TLS 1.3 handshake and one request",
    "connections/s",
    Target::None,
);
static P99: Figure = figure(
    "p99 at half of nginx's rate",
    "µs",
    Target::Part(1.0, Kind::Nginx),
);
static P999: Figure = figure(
    "p99.9 at half of nginx's rate",
    "µs",
    Target::Part(1.0, Kind::Nginx),
);
static LATE: Figure = figure("of it the generator's own delay, p99", "µs", Target::None);
static PROCESS: Figure = figure("idle process", "MiB", Target::AtMost(15.0));
static CONNECTION: Figure = figure("idle TLS connection", "KiB", Target::AtMost(16.0));
static FEW: Figure = figure("100 open connections, all busy", PER_REQUEST, Target::None);
static MANY: Figure = figure(
    "10,000 open connections, 100 busy",
    PER_REQUEST,
    Target::None,
);
static MANY_TO_FEW: Figure = figure(
    "10,000 open to 100 open",
    "times the CPU",
    Target::AtMost(1.15),
);
static CALLS: Figure = figure(
    "system calls, 64 connections",
    "calls/request",
    Target::AtMost(4.0),
);
static CALLS_ALONE: Figure = figure("system calls, 1 connection", "calls/request", Target::None);

/// What every workload needs.
pub(crate) struct Bench {
    pub(crate) runtime: Runtime,
    pub(crate) tls: Arc<ClientConfig>,
    pub(crate) duration: Duration,
    /// Half of what nginx answers at most; measured when it is needed first.
    pub(crate) pace: Cell<Option<f64>>,
    /// What no number says.
    pub(crate) notes: RefCell<BTreeMap<String, String>>,
}

/// What one round on one proxy gives.
type Values = Vec<(&'static Figure, f64)>;

impl Workload {
    /// Memory is first: it needs proxies that have done nothing yet.
    pub(crate) const ALL: [Self; 10] = [
        Self::Memory,
        Self::Load(&HTTP),
        Self::Load(&HTTPS),
        Self::Load(&HTTP2),
        Self::Handshake,
        Self::Load(&BODIES),
        Self::Load(&BODIES_TLS),
        Self::Latency,
        Self::Open,
        Self::SystemCalls,
    ];

    /// Its name on the command line.
    pub(crate) fn key(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Load(load) => load.key,
            Self::Handshake => "handshake",
            Self::Latency => "latency",
            Self::Open => "open",
            Self::SystemCalls => "syscalls",
        }
    }

    pub(crate) fn warm_up(self, bench: &Bench, peer: &Peer) -> anyhow::Result<()> {
        match self {
            Self::Load(load) => load.tool.run(peer, load.path, WARM_UP).map(drop),
            Self::Handshake => {
                let asked = bench.asked(peer, true);
                let run = client::handshakes(&asked, WARM_UP);
                bench.runtime.block_on(run).map(drop)
            }
            Self::Memory => Ok(()),
            _ => HTTP.tool.run(peer, SMALL, WARM_UP).map(drop),
        }
    }

    pub(crate) fn run(self, bench: &Bench, peer: &Peer, site: &Site) -> anyhow::Result<Values> {
        match self {
            Self::Memory => bench.memory(peer),
            Self::Load(load) => load.run(bench, peer),
            Self::Handshake => bench.handshake(peer),
            Self::Latency => bench.latency(peer),
            Self::Open => bench.open(peer),
            Self::SystemCalls => bench.system_calls(peer, site),
        }
    }
}

impl Load {
    fn run(&'static self, bench: &Bench, peer: &Peer) -> anyhow::Result<Values> {
        let before = peer.cpu()?;
        let outcome = self.tool.run(peer, self.path, bench.duration)?;
        let used = (peer.cpu()? - before).as_secs_f64();
        let requests = outcome.requests as f64;
        let cost = match self.per {
            Per::Request => used * 1e6 / requests,
            Per::Gib => used * 1e3 / (requests * LARGE_BYTES as f64 / f64::powi(2.0, 30)),
        };
        Ok(vec![
            (&self.cost, cost),
            (&self.rate, outcome.requests_per_s()),
        ])
    }
}

impl Bench {
    fn asked(&self, peer: &Peer, in_tls: bool) -> Asked {
        Asked {
            address: match in_tls {
                true => peer.listens.https,
                false => peer.listens.http,
            },
            host: HOST.to_owned(),
            tls: in_tls.then(|| self.tls.clone()),
        }
    }

    /// Of a proxy that was started [`SETTLING`] ago.
    fn memory(&self, peer: &Peer) -> anyhow::Result<Values> {
        let before = peer.memory_kib()?;
        let asked = self.asked(peer, true);
        let idle = self.runtime.block_on(client::idle(&asked, IDLE_TLS))?;
        std::thread::sleep(SETTLING);
        let after = peer.memory_kib()?;
        self.expect_open(&idle)?;
        Ok(vec![
            (&PROCESS, before / 1024.0),
            (&CONNECTION, (after - before) / IDLE_TLS as f64),
        ])
    }

    fn handshake(&self, peer: &Peer) -> anyhow::Result<Values> {
        let before = peer.cpu()?;
        let asked = self.asked(peer, true);
        let handshakes = client::handshakes(&asked, self.duration);
        let count = self.runtime.block_on(handshakes)? as f64;
        let used = peer.cpu()? - before;
        Ok(vec![
            (&HANDSHAKE, used.as_secs_f64() * 1e6 / count),
            (&HANDSHAKE_RATE, count / self.duration.as_secs_f64()),
        ])
    }

    fn latency(&self, peer: &Peer) -> anyhow::Result<Values> {
        let pace = self.pace.get();
        let pace = Pace {
            address: peer.listens.http,
            host: HOST.to_owned(),
            path: SMALL,
            connections: PACED,
            requests_per_s: pace.ok_or_else(|| anyhow::anyhow!("nginx's rate is not known"))?,
            warm_up: WARM_UP,
            duration: self.duration,
        };
        let latencies = pace.run()?;
        Ok(vec![
            (&P99, latencies.answered.quantile(0.99)),
            (&P999, latencies.answered.quantile(0.999)),
            (&LATE, latencies.late.quantile(0.99)),
        ])
    }

    /// Measures at which rate latency is compared, unless it is known.
    pub(crate) fn find_pace(&self, nginx: &Peer) -> anyhow::Result<f64> {
        if let Some(pace) = self.pace.get() {
            return Ok(pace);
        }
        let outcome = HTTP.tool.run(nginx, SMALL, self.duration)?;
        let pace = outcome.requests_per_s() / 2.0;
        self.pace.set(Some(pace));
        Ok(pace)
    }

    fn open(&self, peer: &Peer) -> anyhow::Result<Values> {
        let few = self.busy_of_many(peer)?;
        let asked = self.asked(peer, false);
        let idle = self.runtime.block_on(client::idle(&asked, IDLE))?;
        let many = self.busy_of_many(peer)?;
        self.expect_open(&idle)?;
        Ok(vec![(&FEW, few), (&MANY, many), (&MANY_TO_FEW, many / few)])
    }

    /// CPU for a request, in µs.
    fn busy_of_many(&self, peer: &Peer) -> anyhow::Result<f64> {
        let tool = Tool::Wrk {
            connections: BUSY_OF_MANY,
        };
        let before = peer.cpu()?;
        let outcome = tool.run(peer, SMALL, self.duration.min(BESIDE_IDLE_MAX))?;
        let used = peer.cpu()? - before;
        Ok(used.as_secs_f64() * 1e6 / outcome.requests as f64)
    }

    /// What was measured beside idle connections needs them until its end.
    fn expect_open(&self, connections: &[Connection]) -> anyhow::Result<()> {
        let open = self.runtime.block_on(async {
            let mut open = 0;
            for connection in connections {
                open += usize::from(connection.is_open().await);
            }
            open
        });
        let all = connections.len();
        ensure!(
            open == all,
            "only {open} of {all} idle connections stayed open"
        );
        Ok(())
    }

    fn system_calls(&self, peer: &Peer, site: &Site) -> anyhow::Result<Values> {
        let report = site.path("strace.txt");
        let count = |connections| {
            let count = Count::start(peer.pid(), &report)?;
            let outcome = Tool::Wrk { connections }.run(peer, SMALL, self.duration)?;
            let calls = count.finish()?;
            let requests = outcome.requests as f64;
            let mut shown = String::new();
            for (name, count) in &calls {
                let count = *count as f64 / requests;
                if count >= 0.01 {
                    let _ = write!(shown, ", {name} {count:.2}");
                }
            }
            let about = format!("Calls a request, {}, connections {connections}", peer.kind);
            // The last round's stands for all.
            let shown = shown.trim_start_matches(", ").to_owned();
            self.notes.borrow_mut().insert(about, shown);
            anyhow::Ok(calls.values().sum::<u64>() as f64 / requests)
        };
        Ok(vec![(&CALLS, count(BUSY)?), (&CALLS_ALONE, count(1)?)])
    }
}
