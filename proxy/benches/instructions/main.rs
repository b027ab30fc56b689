//! What a request costs the engine, in instructions: a figure that holds on a noisy machine as well.
//!
//! An engine runs under callgrind, in a process of its own; origin and clients are outside. Each workload is done twice,
//! the second time with twice the requests: the difference, of the thread that serves, is what the requests cost. Start,
//! connections and end are not in it, nor is the thread that writes records, nor the kernel.
//!
//! Run it with `benches/instructions.sh`. `serve ORIGIN` as arguments serves only, for other tools to look at.

mod client;
mod counted;
mod origin;
mod site;
mod tls;

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context as _, bail};

use crate::client::Load;
use crate::counted::Engine;
use crate::origin::Origin;
use crate::tls::Issued;

/// As in the product.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

struct Workload {
    name: &'static str,
    side: Side,
    load: Load,
    /// Of the shorter run.
    requests: u32,
}

/// Who is asked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Edge,
    EdgeTls,
    /// A sidecar, towards other services.
    Outbound,
}

const SMALL: &str = "GET /1k HTTP/1.1\r\nHost: h777.bench.test\r\n\r\n";
/// What a browser says.
const BROWSER: &str = "GET /1k?id=7 HTTP/1.1\r\n\
    Host: h777.bench.test\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:130.0) Gecko/20100101 Firefox/130.0\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n\
    Accept-Language: en-US,en;q=0.5\r\n\
    Accept-Encoding: gzip, deflate, br\r\n\
    Referer: http://h777.bench.test/cart\r\n\
    Connection: keep-alive\r\n\
    Cookie: session=0123456789abcdef0123456789abcdef; theme=dark\r\n\
    Upgrade-Insecure-Requests: 1\r\n\
    Priority: u=0, i\r\n\r\n";
const LARGE: &str = "GET /64k HTTP/1.1\r\nHost: h777.bench.test\r\n\r\n";
const LAST: &str = "GET /1k HTTP/1.1\r\nHost: h777.bench.test\r\nConnection: close\r\n\r\n";
const POST: &str = "POST /1k HTTP/1.1\r\nHost: h777.bench.test\r\nContent-Length: 26\r\n\r\nabcdefghijklmnopqrstuvwxyz";

const WORKLOADS: [Workload; 10] = [
    Workload {
        name: "edge, HTTP/1, 1 KiB, 32 connections",
        side: Side::Edge,
        load: Load::http1(32, SMALL),
        requests: 3200,
    },
    Workload {
        name: "edge, HTTP/1, 1 KiB, 1 connection",
        side: Side::Edge,
        load: Load::http1(1, SMALL),
        requests: 1500,
    },
    Workload {
        name: "edge, HTTP/1, 1 KiB, a browser's head, 32 connections",
        side: Side::Edge,
        load: Load::http1(32, BROWSER),
        requests: 3200,
    },
    Workload {
        name: "edge, HTTP/1, 1 KiB, a request with a body, 32 connections",
        side: Side::Edge,
        load: Load::http1(32, POST),
        requests: 3200,
    },
    Workload {
        name: "edge, HTTP/1, 64 KiB, 8 connections",
        side: Side::Edge,
        load: Load::http1(8, LARGE),
        requests: 800,
    },
    Workload {
        name: "edge, HTTP/1 in TLS 1.3, 1 KiB, 32 connections",
        side: Side::EdgeTls,
        load: Load::tls(32, SMALL),
        requests: 3200,
    },
    Workload {
        name: "edge, TLS 1.3 handshake and one request, 1 KiB",
        side: Side::EdgeTls,
        load: Load::Handshakes { request: LAST },
        requests: 200,
    },
    Workload {
        name: "edge, HTTP/2 to HTTP/1, 1 KiB, 2 connections with 10 streams",
        side: Side::Edge,
        load: Load::http2(2, 10, "/1k"),
        requests: 2000,
    },
    // Each request finds a connection that holds nothing.
    Workload {
        name: "edge, HTTP/2 to HTTP/1, 1 KiB, 2 connections with 1 stream",
        side: Side::Edge,
        load: Load::http2(2, 1, "/1k"),
        requests: 1500,
    },
    Workload {
        name: "sidecar outbound, HTTP/1, 1 KiB, 32 connections",
        side: Side::Outbound,
        load: Load::http1(32, SMALL),
        requests: 3200,
    },
];

fn main() -> anyhow::Result<()> {
    // Cargo says what kind of a run it is; there is one kind.
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| a != "--bench")
        .collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["serve", origin] => site::serve(Side::Edge, address(origin)?, None),
        ["serve-outbound", origin] => site::serve(Side::Outbound, address(origin)?, None),
        ["serve-tls", origin, certificate] => {
            let certificate = Path::new(certificate);
            site::serve(Side::EdgeTls, address(origin)?, Some(certificate))
        }
        ["origin"] => origin::serve_alone(),
        [] => count(""),
        ["--only", part] => count(part),
        _ => bail!(
            "usage: instructions [--only PART-OF-A-NAME | serve ORIGIN | serve-outbound ORIGIN | serve-tls ORIGIN FOLDER | \
             origin]"
        ),
    }
}

fn address(text: &str) -> anyhow::Result<SocketAddr> {
    text.parse()
        .with_context(|| format!("{text:?} is no address with a port"))
}

/// Prints a table of the workloads whose names have this in them.
fn count(part: &str) -> anyhow::Result<()> {
    let origin = Origin::start()?;
    let certificate = Issued::new()?;
    let mut out = std::io::stdout();
    writeln!(out, "| Workload | instructions a request |\n|---|---:|")?;
    for workload in WORKLOADS
        .iter()
        .filter(|workload| workload.name.contains(part))
    {
        let spent = |requests: u32| -> anyhow::Result<u64> {
            let engine = Engine::start(workload.side, origin.address, certificate.folder())?;
            workload
                .load
                .run(engine.address, &certificate.client, requests)?;
            engine.stop()
        };
        let (once, twice) = (spent(workload.requests)?, spent(2 * workload.requests)?);
        let each = twice.saturating_sub(once) / u64::from(workload.requests);
        writeln!(out, "| {} | {each} |", workload.name)?;
    }
    Ok(())
}
