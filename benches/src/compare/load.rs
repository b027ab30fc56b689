//! Loads that keep a proxy busy: as many requests as a tool gets answered.

use super::figure::{Figure, Target};
use super::origin::{LARGE, LARGE_BYTES, SMALL};
use super::peer::{Kind, Peer};
use super::tools::Tool;
use super::workload::{Bench, Values};

/// Connections of HTTP/1.
pub(crate) const BUSY: u32 = 64;

/// As many requests as a tool gets answered.
#[derive(Debug)]
pub(crate) struct Load {
    pub(crate) key: &'static str,
    pub(crate) tool: Tool,
    pub(crate) path: &'static str,
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

pub(crate) const PER_REQUEST: &str = "µs CPU/request";
const PER_GIB: &str = "ms CPU/GiB";
const RATE: &str = "requests/s";

pub(crate) static HTTP: Load = Load {
    key: "http",
    tool: Tool::Wrk { connections: BUSY },
    path: SMALL,
    per: Per::Request,
    cost: Figure::of_all(
        "HTTP/1 kept alive, 1 KiB",
        PER_REQUEST,
        Target::Part(0.85, Kind::Nginx),
    ),
    rate: Figure::of_all("HTTP/1 kept alive, 1 KiB", RATE, Target::None),
};
pub(crate) static HTTPS: Load = Load {
    key: "https",
    tool: Tool::Tls { connections: BUSY },
    path: SMALL,
    per: Per::Request,
    cost: Figure::of_all(
        "HTTP/1 in TLS 1.3, 1 KiB",
        PER_REQUEST,
        Target::Part(0.85, Kind::Nginx),
    ),
    rate: Figure::of_all("HTTP/1 in TLS 1.3, 1 KiB", RATE, Target::None),
};
pub(crate) static HTTP2: Load = Load {
    key: "http2",
    tool: Tool::Http2 {
        connections: 32,
        streams: 10,
    },
    path: SMALL,
    per: Per::Request,
    cost: Figure::of_all(
        "HTTP/2 in TLS, 10 streams, 1 KiB",
        PER_REQUEST,
        Target::Part(0.90, Kind::Nginx),
    ),
    rate: Figure::of_all("HTTP/2 in TLS, 10 streams, 1 KiB", RATE, Target::None),
};
pub(crate) static BODIES: Load = Load {
    key: "bodies",
    tool: Tool::Wrk { connections: 32 },
    path: LARGE,
    per: Per::Gib,
    cost: Figure::of_all(
        "bodies of 64 KiB",
        PER_GIB,
        Target::Part(0.75, Kind::Haproxy),
    ),
    rate: Figure::of_all("bodies of 64 KiB", RATE, Target::None),
};
pub(crate) static BODIES_TLS: Load = Load {
    key: "bodies-tls",
    tool: Tool::Tls { connections: 32 },
    path: LARGE,
    per: Per::Gib,
    cost: Figure::of_all(
        "bodies of 64 KiB in TLS",
        PER_GIB,
        Target::Part(0.75, Kind::Haproxy),
    ),
    rate: Figure::of_all("bodies of 64 KiB in TLS", RATE, Target::None),
};
impl Load {
    pub(crate) fn run(&'static self, bench: &Bench, peer: &Peer) -> anyhow::Result<Values> {
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
