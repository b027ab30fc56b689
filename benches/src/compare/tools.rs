//! `wrk` and `h2load`, each with one thread and an end that comes whatever happens.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};

use super::peer::{Peer, ended_with_us, said};
use super::site::HOST;
use crate::load;

/// What they say of themselves.
pub(crate) fn versions() -> anyhow::Result<Vec<String>> {
    let wrk = said(Command::new("wrk").arg("-v"))?;
    // It names its makers behind that.
    let wrk = wrk
        .split(" Copyright")
        .next()
        .unwrap_or_default()
        .trim()
        .to_owned();
    Ok(vec![wrk, said(Command::new("h2load").arg("--version"))?])
}

/// Beyond the time they are told; then they are ended.
const PATIENCE: Duration = Duration::from_secs(15);

/// 32 connections with 10,000 requests each are 100,000 requests/s for so long.
const PART_MAX: Duration = Duration::from_secs(3);

/// Who makes a load, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Tool {
    /// HTTP/1 in the clear.
    Wrk { connections: u32 },
    /// HTTP/1 in TLS.
    Tls { connections: u32 },
    /// HTTP/2 in TLS.
    Http2 { connections: u32, streams: u32 },
}

pub(crate) struct Outcome {
    pub(crate) requests: u64,
    pub(crate) elapsed: Duration,
}

impl Outcome {
    pub(crate) fn requests_per_s(&self) -> f64 {
        self.requests as f64 / self.elapsed.as_secs_f64()
    }
}

impl Tool {
    /// Any failed request fails the run, since figures of failures mean nothing.
    pub(crate) fn run(
        self,
        peer: &Peer,
        path: &str,
        duration: Duration,
    ) -> anyhow::Result<Outcome> {
        let (http, https) = (peer.listens.http, peer.listens.https);
        match self {
            Self::Wrk { connections } => wrk(http, path, duration, connections),
            Self::Tls { connections } => h2load(https, path, duration, connections, None),
            Self::Http2 {
                connections,
                streams,
            } => in_parts(duration, |part| {
                h2load(https, path, part, connections, Some(streams))
            }),
        }
        .with_context(|| format!("{self:?}: {}", peer.complaint()))
    }
}

/// HTTP/1 in the clear; one request after the other on each connection.
pub(crate) fn wrk(
    address: SocketAddr,
    path: &str,
    duration: Duration,
    connections: u32,
) -> anyhow::Result<Outcome> {
    let mut command = bounded("wrk", duration);
    command
        .args(["--latency", "-t1"])
        .arg(format!("-c{connections}"))
        .arg(format!("-d{}s", duration.as_secs()))
        .arg(format!("-HHost: {HOST}"))
        .arg(format!("http://{address}{path}"));
    let outcome = load::parse_wrk(&load::run(command)?)?;
    Ok(Outcome {
        requests: some(outcome.requests)?,
        elapsed: outcome.elapsed,
    })
}

fn h2load(
    address: SocketAddr,
    path: &str,
    duration: Duration,
    connections: u32,
    streams: Option<u32>,
) -> anyhow::Result<Outcome> {
    let mut command = bounded("h2load", duration);
    command
        .args(["-t1", "-c", &connections.to_string()])
        .args(["-D", &duration.as_secs().to_string()])
        .arg(format!("--connect-to={address}"));
    match streams {
        Some(streams) => command.args(["-m", &streams.to_string()]),
        None => command.arg("--h1"),
    };
    command.arg(format!("https://{HOST}{path}"));
    Ok(Outcome {
        requests: some(parse_h2load(&load::run(command)?)?)?,
        elapsed: duration,
    })
}

/// `h2load` does not come back when a connection has had all the requests that a proxy allows it (10,000 by many): no run is so
/// long that one could get there.
fn in_parts(
    duration: Duration,
    run: impl Fn(Duration) -> anyhow::Result<Outcome>,
) -> anyhow::Result<Outcome> {
    let mut whole = Outcome {
        requests: 0,
        elapsed: Duration::ZERO,
    };
    while whole.elapsed < duration {
        let part = run(PART_MAX.min(duration - whole.elapsed))?;
        whole.requests += part.requests;
        whole.elapsed += part.elapsed;
    }
    Ok(whole)
}

fn bounded(program: &str, duration: Duration) -> Command {
    let mut command = ended_with_us("timeout", None);
    let limit = (duration + PATIENCE).as_secs().to_string();
    command.args(["--kill-after", "2", &limit, program]);
    command
}

fn some(requests: u64) -> anyhow::Result<u64> {
    ensure!(requests > 0, "no request was answered");
    Ok(requests)
}

/// How many requests succeeded; none may have failed, and the protocol must be TLS 1.3.
fn parse_h2load(report: &str) -> anyhow::Result<u64> {
    let line = |start: &str| {
        let line = report.lines().find_map(|line| line.strip_prefix(start));
        line.with_context(|| format!("no {start:?} in {report}"))
    };
    let protocol = line("TLS Protocol: ")?;
    ensure!(protocol == "TLSv1.3", "{protocol}");
    let (counts, statuses) = (line("requests: ")?, line("status codes: ")?);
    ensure!(
        counts.contains(" 0 failed, 0 errored, 0 timeout"),
        "{counts}"
    );
    ensure!(statuses.contains(" 0 3xx, 0 4xx, 0 5xx"), "{statuses}");
    let done = counts
        .split(", ")
        .find_map(|part| part.strip_suffix(" succeeded"));
    done.and_then(|done| done.parse().ok())
        .with_context(|| counts.to_owned())
}

#[cfg(test)]
mod tests {
    use super::parse_h2load;

    #[test]
    fn reports_of_h2load_are_read() {
        let report = "TLS Protocol: TLSv1.3\n\
                      requests: 42 total, 44 started, 42 done, 42 succeeded, 0 failed, 0 errored, 0 timeout\n\
                      status codes: 42 2xx, 0 3xx, 0 4xx, 0 5xx\n";
        assert_eq!(parse_h2load(report).unwrap(), 42);
        for (part, other) in [
            ("TLSv1.3", "TLSv1.2"),
            ("0 errored", "1 errored"),
            ("0 5xx", "1 5xx"),
        ] {
            assert!(parse_h2load(&report.replace(part, other)).is_err());
        }
    }
}
