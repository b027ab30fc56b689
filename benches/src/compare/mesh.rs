//! What two sidecars in the path add, mTLS between them, to a path without any.
//!
//! Client and origin are in the networks of pods; the redirect there leads to the sidecars, which are what a cluster
//! starts. Their CPU a request is held against that of one TLS hop: the edge in the same round, which ends TLS with HTTP/2
//! and asks its origin by HTTP/1, with as many requests under way.

mod pods;

use std::time::Duration;

use anyhow::ensure;
use nix::unistd::Uid;

use super::figure::{Figure, Target};
use super::load::PER_REQUEST;
use super::origin::SMALL;
use super::paced::Pace;
use super::peer::{Peer, Programs};
use super::site::HOST;
use super::tools::{self, Tool};
use super::workload::{Bench, Values, WARM_UP};
use pods::{Pods, Way};

/// Its name on the command line.
pub(crate) const KEY: &str = "mesh";
/// One request each.
const CONNECTIONS: u32 = 64;
/// As many requests under way, on as many connections as the edge's own HTTP/2 load has.
const HOP_LOAD: Tool = Tool::Http2 {
    connections: 32,
    streams: 2,
};
/// About an eighth of what two sidecars on one core reach.
const PACE_PER_S: f64 = 4_000.0;

static HOP: Figure = Figure::of_meshgate(
    "one TLS hop: HTTP/2 to HTTP/1, 64 requests under way",
    PER_REQUEST,
    Target::None,
);
static SIDECARS: Figure = Figure::of_meshgate(
    "two sidecars, 64 requests under way",
    PER_REQUEST,
    Target::None,
);
static RATE: Figure = Figure::of_meshgate(
    "two sidecars, 64 requests under way",
    "requests/s",
    Target::None,
);
static TO_HOP: Figure = Figure::of_meshgate(
    "two sidecars to one TLS hop",
    "times the CPU",
    Target::AtMost(2.2),
);
static P99_WITHOUT: Figure =
    Figure::of_meshgate("p99 at 4,000 requests/s, no sidecars", "ms", Target::None);
static P99_WITH: Figure =
    Figure::of_meshgate("p99 at 4,000 requests/s, two sidecars", "ms", Target::None);
static LATE: Figure =
    Figure::of_meshgate("of it the generator's own delay, p99", "ms", Target::None);
static P50_ADDED: Figure = Figure::of_meshgate("p50 that two sidecars add", "ms", Target::None);
static P99_ADDED: Figure =
    Figure::of_meshgate("p99 that two sidecars add", "ms", Target::AtMost(1.0));

/// Pods, and an edge for the hop; ended when dropped.
pub(crate) struct Mesh<'b> {
    bench: &'b Bench,
    pods: Pods,
    edge: &'b Peer,
}

impl<'b> Mesh<'b> {
    /// Both ways have carried some load when it returns.
    pub(crate) fn start(
        bench: &'b Bench,
        programs: &Programs,
        origin_core: usize,
        edge: &'b Peer,
    ) -> anyhow::Result<Self> {
        ensure!(
            Uid::effective().is_root(),
            "only root may enter the networks of pods"
        );
        let pods = Pods::start(programs, origin_core, &bench.runtime)?;
        HOP_LOAD.run(edge, SMALL, WARM_UP)?;
        for way in [&pods.meshed, &pods.plain] {
            closed_loop(way, WARM_UP)?;
        }
        Ok(Self { bench, pods, edge })
    }

    /// One round.
    pub(crate) fn measure(&self) -> anyhow::Result<Values> {
        let hop = self.hop()?;
        let (sidecars, rate) = self.sidecars()?;
        let without = self.latencies(&self.pods.plain)?;
        let with = self.latencies(&self.pods.meshed)?;
        self.edge.forget_log()?;
        Ok(vec![
            (&TO_HOP, sidecars / hop),
            (&HOP, hop),
            (&SIDECARS, sidecars),
            (&RATE, rate),
            (&P99_ADDED, with.p99 - without.p99),
            (&P99_WITHOUT, without.p99),
            (&P99_WITH, with.p99),
            (&LATE, with.late_p99),
            (&P50_ADDED, with.p50 - without.p50),
        ])
    }

    /// Lines of the access log that both lost so far.
    pub(crate) fn lost_records(&self) -> anyhow::Result<u64> {
        let lost = |sidecar: &pods::Sidecar| sidecar.counted(&["meshgate_access_records_lost"]);
        self.pods.sidecars.iter().map(lost).sum()
    }

    /// CPU for a request, in µs.
    fn hop(&self) -> anyhow::Result<f64> {
        let before = self.edge.cpu()?;
        let outcome = HOP_LOAD.run(self.edge, SMALL, self.bench.duration)?;
        let used = self.edge.cpu()? - before;
        Ok(used.as_secs_f64() * 1e6 / outcome.requests as f64)
    }

    /// CPU of both for a request, in µs; requests/s.
    fn sidecars(&self) -> anyhow::Result<(f64, f64)> {
        let (cpu, by_mtls) = (self.cpu()?, self.by_mtls()?);
        let outcome = closed_loop(&self.pods.meshed, self.bench.duration)?;
        let used = self.cpu()? - cpu;
        let by_mtls = self.by_mtls()? - by_mtls;
        ensure!(
            by_mtls >= outcome.requests,
            "only {by_mtls} of {} requests came by mTLS",
            outcome.requests
        );
        let requests = outcome.requests as f64;
        Ok((
            used.as_secs_f64() * 1e6 / requests,
            outcome.requests_per_s(),
        ))
    }

    fn cpu(&self) -> anyhow::Result<Duration> {
        self.pods.sidecars.iter().map(pods::Sidecar::cpu).sum()
    }

    /// Requests that came to the server from somebody with an identity.
    fn by_mtls(&self) -> anyhow::Result<u64> {
        let [_, inbound] = &self.pods.sidecars;
        let by_mtls = [
            "meshgate_requests_total",
            "direction=\"inbound\"",
            "peer=\"spiffe://",
        ];
        inbound.counted(&by_mtls)
    }

    fn latencies(&self, way: &Way) -> anyhow::Result<Latencies> {
        let pace = Pace {
            address: way.service,
            host: HOST.to_owned(),
            path: SMALL,
            connections: CONNECTIONS as usize,
            requests_per_s: PACE_PER_S,
            warm_up: WARM_UP,
            duration: self.bench.duration,
        };
        let found = way.caller.run(|| pace.run())?;
        Ok(Latencies {
            p50: found.answered.quantile(0.5) / 1e3,
            p99: found.answered.quantile(0.99) / 1e3,
            late_p99: found.late.quantile(0.99) / 1e3,
        })
    }
}

/// All in ms.
struct Latencies {
    p50: f64,
    p99: f64,
    late_p99: f64,
}

fn closed_loop(way: &Way, duration: Duration) -> anyhow::Result<tools::Outcome> {
    let load = || tools::wrk(way.service, SMALL, duration, CONNECTIONS);
    way.caller.run(load)
}
