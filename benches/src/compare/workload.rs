//! What is done to every proxy, and what is read from it meanwhile.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use rustls::ClientConfig;
use tokio::runtime::Runtime;

use super::client::{self, Connection, Target as Asked};
use super::figure::{Figure, Target};
use super::load::{BODIES, BODIES_TLS, BUSY, HTTP, HTTP2, HTTPS, Load, PER_REQUEST};
use super::origin::SMALL;
use super::paced::Pace;
use super::peer::{Kind, Peer};
use super::site::{HOST, Site};
use super::strace::Count;
use super::tools::Tool;

/// Before the first round, so that connections to the origin and caches are there.
pub(crate) const WARM_UP: Duration = Duration::from_secs(1);
/// TLS connections whose memory is measured.
const IDLE_TLS: u64 = 1000;
/// TLS connections that are open before: what the first of them touches is no connection's own.
const IDLE_FIRST: Range<u64> = IDLE_TLS..IDLE_TLS + 100;
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
    MemoryHttp2,
    Load(&'static Load),
    Handshake,
    Latency,
    Open,
    SystemCalls,
}

static HANDSHAKE: Figure = Figure::of_all(
    "full TLS 1.3 handshake and one request",
    "µs CPU/connection",
    Target::Part(0.50, Kind::Nginx),
);
static HANDSHAKE_RATE: Figure = Figure::of_all(
    "full TLS 1.3 handshake and one request",
    "connections/s",
    Target::None,
);
static P99: Figure = Figure::of_all(
    "p99 at half of nginx's rate",
    "µs",
    Target::Part(1.0, Kind::Nginx),
);
static P999: Figure = Figure::of_all(
    "p99.9 at half of nginx's rate",
    "µs",
    Target::Part(1.0, Kind::Nginx),
);
static LATE: Figure = Figure::of_all("of it the generator's own delay, p99", "µs", Target::None);
static PROCESS: Figure = Figure::of_all("idle process", "MiB", Target::AtMost(15.0));
static CONNECTION: Figure = Figure::of_all("idle TLS connection", "KiB", Target::AtMost(16.0));
static CONNECTION_HTTP2: Figure = Figure::of_all(
    "idle TLS connection with HTTP/2",
    "KiB",
    Target::AtMost(16.0),
);
static FEW: Figure = Figure::of_all("100 open connections, all busy", PER_REQUEST, Target::None);
static MANY: Figure = Figure::of_all(
    "10,000 open connections, 100 busy",
    PER_REQUEST,
    Target::None,
);
static MANY_TO_FEW: Figure = Figure::of_all(
    "10,000 open to 100 open",
    "times the CPU",
    Target::AtMost(1.15),
);
static CALLS: Figure = Figure::of_all(
    "system calls, 64 connections",
    "calls/request",
    Target::AtMost(4.0),
);
static CALLS_ALONE: Figure =
    Figure::of_all("system calls, 1 connection", "calls/request", Target::None);

/// How a proxy is asked.
#[derive(Clone, Copy)]
enum Over {
    Clear,
    /// HTTP/1 in TLS.
    Tls,
    /// HTTP/2 in TLS.
    Http2,
}

/// What every workload needs.
pub(crate) struct Bench {
    pub(crate) runtime: Runtime,
    pub(crate) tls: Arc<ClientConfig>,
    pub(crate) tls_http2: Arc<ClientConfig>,
    pub(crate) duration: Duration,
    /// Half of what nginx answers at most; measured when it is needed first.
    pub(crate) pace: Cell<Option<f64>>,
    /// What no number says.
    pub(crate) notes: RefCell<BTreeMap<String, String>>,
}

/// What one round on one proxy gives.
pub(crate) type Values = Vec<(&'static Figure, f64)>;

impl Workload {
    pub(crate) const ALL: [Self; 11] = [
        Self::Memory,
        Self::MemoryHttp2,
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
            Self::MemoryHttp2 => "memory-http2",
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
                let asked = bench.asked(peer, Over::Tls);
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
            Self::MemoryHttp2 => bench.memory_http2(peer),
            Self::Load(load) => load.run(bench, peer),
            Self::Handshake => bench.handshake(peer),
            Self::Latency => bench.latency(peer),
            Self::Open => bench.open(peer),
            Self::SystemCalls => bench.system_calls(peer, site),
        }
    }
}

impl Bench {
    fn asked(&self, peer: &Peer, over: Over) -> Asked {
        Asked {
            address: match over {
                Over::Clear => peer.listens.http,
                Over::Tls | Over::Http2 => peer.listens.https,
            },
            host: HOST.to_owned(),
            tls: match over {
                Over::Clear => None,
                Over::Tls => Some(self.tls.clone()),
                Over::Http2 => Some(self.tls_http2.clone()),
            },
        }
    }

    /// Of a proxy that was started [`SETTLING`] ago.
    fn memory(&self, peer: &Peer) -> anyhow::Result<Values> {
        let process = peer.memory_kib()?;
        let asked = self.asked(peer, Over::Tls);
        let idle = |indices| self.runtime.block_on(client::idle(&asked, indices));
        let _first = idle(IDLE_FIRST)?;
        std::thread::sleep(SETTLING);
        let before = peer.memory_kib()?;
        let idle = idle(0..IDLE_TLS)?;
        std::thread::sleep(SETTLING);
        let after = peer.memory_kib()?;
        self.expect_open(&idle)?;
        Ok(vec![
            (&PROCESS, process / 1024.0),
            (&CONNECTION, (after - before) / IDLE_TLS as f64),
        ])
    }

    /// The same.
    fn memory_http2(&self, peer: &Peer) -> anyhow::Result<Values> {
        let asked = self.asked(peer, Over::Http2);
        let idle = |indices| self.runtime.block_on(client::idle_http2(&asked, indices));
        let _first = idle(IDLE_FIRST)?;
        std::thread::sleep(SETTLING);
        let before = peer.memory_kib()?;
        let mut idle = idle(0..IDLE_TLS)?;
        std::thread::sleep(SETTLING);
        let after = peer.memory_kib()?;
        self.runtime.block_on(async {
            for (index, connection) in idle.iter_mut().enumerate() {
                let is_open = connection.is_open().await;
                ensure!(is_open, "idle connection {index} did not stay open");
            }
            Ok(())
        })?;
        Ok(vec![(
            &CONNECTION_HTTP2,
            (after - before) / IDLE_TLS as f64,
        )])
    }

    fn handshake(&self, peer: &Peer) -> anyhow::Result<Values> {
        let before = peer.cpu()?;
        let asked = self.asked(peer, Over::Tls);
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
        let asked = self.asked(peer, Over::Clear);
        let idle = self.runtime.block_on(client::idle(&asked, 0..IDLE))?;
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

    /// Of kept-alive connections: what a run of twice the length has more than one of the length. Opening and closing is in
    /// both.
    fn system_calls(&self, peer: &Peer, site: &Site) -> anyhow::Result<Values> {
        let report = site.path("strace.txt");
        let run = |connections, duration| {
            let count = Count::start(peer.pid(), &report)?;
            let outcome = Tool::Wrk { connections }.run(peer, SMALL, duration)?;
            anyhow::Ok((count.finish()?, outcome.requests))
        };
        let count = |connections| {
            let (short, few) = run(connections, self.duration)?;
            let (long, many) = run(connections, 2 * self.duration)?;
            ensure!(many > few, "{many} requests in twice the time of {few}");
            let requests = (many - few) as f64;
            let (mut shown, mut sum) = (String::new(), 0.0);
            for (name, calls) in &long {
                let count = *calls as f64 - short.get(name).copied().unwrap_or(0) as f64;
                sum += count / requests;
                if count / requests >= 0.01 {
                    let _ = write!(shown, ", {name} {:.2}", count / requests);
                }
            }
            let about = format!("Calls a request, {}, connections {connections}", peer.kind);
            // The last round's stands for all.
            let shown = shown.trim_start_matches(", ").to_owned();
            self.notes.borrow_mut().insert(about, shown);
            anyhow::Ok(sum)
        };
        Ok(vec![(&CALLS, count(BUSY)?), (&CALLS_ALONE, count(1)?)])
    }
}
