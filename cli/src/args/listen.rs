//! Where an edge listens.

use std::net::SocketAddr;
use std::str::FromStr;

use clap::Args;
use meshgate_api::names::{PORT_METRICS, PORT_READY};
use thiserror::Error;

/// Listeners of an edge.
#[derive(Debug, Clone, Args)]
pub(crate) struct ListenArgs {
    /// Where to take HTTP; may be given several times. Port 0 picks a free one, none is nowhere
    #[arg(long, value_name = "ADDR:PORT", default_value = "0.0.0.0:8080")]
    http: Vec<Place>,
    /// Where to take HTTPS; may be given several times. Port 0 picks a free one, none is nowhere
    #[arg(long, value_name = "ADDR:PORT", default_value = "0.0.0.0:8443")]
    https: Vec<Place>,
    /// Where to answer probes: /readyz
    #[arg(long, value_name = "ADDR:PORT", default_value_t = everywhere(PORT_READY))]
    ready: SocketAddr,
    /// Where to answer scrapers: /metrics
    #[arg(long, value_name = "ADDR:PORT", default_value_t = everywhere(PORT_METRICS))]
    metrics: SocketAddr,
}

fn everywhere(port: u16) -> SocketAddr {
    SocketAddr::from(([0, 0, 0, 0], port))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    At(SocketAddr),
    /// Instead of the default.
    Nowhere,
}

impl FromStr for Place {
    type Err = std::net::AddrParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "none" => Ok(Self::Nowhere),
            _ => text.parse().map(Self::At),
        }
    }
}

/// Listeners that can be opened together: at least one for clients, and none where another is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listens {
    /// Of those for clients: what the edge is known by.
    pub(crate) first: SocketAddr,
    pub(crate) http: Vec<SocketAddr>,
    pub(crate) https: Vec<SocketAddr>,
    pub(crate) ready: SocketAddr,
    pub(crate) metrics: SocketAddr,
}

/// Why arguments name no such listeners.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum ListenError {
    #[error("--http none and --https none leave the edge nothing to serve")]
    Nowhere,
    #[error("--{flag} none allows no other --{flag}")]
    NoneAndSome { flag: &'static str },
    #[error("--{} {} and --{} {} are the same place: each listener needs one of its own", .0.0, .0.1, .1.0, .1.1)]
    Twice((&'static str, SocketAddr), (&'static str, SocketAddr)),
}

impl ListenArgs {
    pub(crate) fn listens(&self) -> Result<Listens, ListenError> {
        let (http, https) = (places("http", &self.http)?, places("https", &self.https)?);
        let first = http.first().or(https.first()).copied();
        let listens = Listens {
            first: first.ok_or(ListenError::Nowhere)?,
            http,
            https,
            ready: self.ready,
            metrics: self.metrics,
        };
        let named = listens.named();
        for (index, one) in named.iter().enumerate() {
            let other = named[..index].iter().find(|other| meet(one.1, other.1));
            if let Some(other) = other {
                return Err(ListenError::Twice(*other, *one));
            }
        }
        Ok(listens)
    }
}

impl Listens {
    /// All of them: HTTP, HTTPS, probes and scrapers, each with the name of its flag.
    pub(crate) fn named(&self) -> Vec<(&'static str, SocketAddr)> {
        let http = self.http.iter().map(|at| ("http", *at));
        let https = self.https.iter().map(|at| ("https", *at));
        let others = [("ready", self.ready), ("metrics", self.metrics)];
        http.chain(https).chain(others).collect()
    }
}

fn places(flag: &'static str, given: &[Place]) -> Result<Vec<SocketAddr>, ListenError> {
    if given == [Place::Nowhere] {
        return Ok(Vec::new());
    }
    let each = given.iter().map(|place| match place {
        Place::At(address) => Ok(*address),
        Place::Nowhere => Err(ListenError::NoneAndSome { flag }),
    });
    each.collect()
}

/// Whether the kernel would refuse one beside the other. What it says of IPv4 beside `[::]` is up to its settings.
fn meet(one: SocketAddr, other: SocketAddr) -> bool {
    let everywhere = one.ip().is_unspecified() || other.ip().is_unspecified();
    let same_ip = one.ip() == other.ip() || everywhere && one.is_ipv4() == other.is_ipv4();
    one.port() != 0 && one.port() == other.port() && same_ip
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        listen: ListenArgs,
    }

    /// The listeners as flags and addresses, or why there are none.
    fn check(line: &str, expected: &str) {
        let parsed = Line::parse_from(std::iter::once("edge").chain(line.split_whitespace()));
        let said = match parsed.listen.listens() {
            Ok(listens) => {
                let named = listens.named();
                let clients = named.iter().filter(|(flag, _)| flag.starts_with("http"));
                let each: Vec<String> = clients.map(|(flag, at)| format!("{flag} {at}")).collect();
                format!("{}; first {}", each.join(", "), listens.first)
            }
            Err(error) => error.to_string(),
        };
        assert_eq!(said, expected, "{line}");
    }

    #[test]
    fn as_many_as_are_given() {
        check(
            "",
            "http 0.0.0.0:8080, https 0.0.0.0:8443; first 0.0.0.0:8080",
        );
        check(
            "--http 127.0.0.1:80 --http [::1]:80",
            "http 127.0.0.1:80, http [::1]:80, https 0.0.0.0:8443; first 127.0.0.1:80",
        );
        check(
            "--http none --https 127.0.0.1:443 --https 127.0.0.2:443",
            "https 127.0.0.1:443, https 127.0.0.2:443; first 127.0.0.1:443",
        );
        check(
            "--http 127.0.0.1:0 --http 127.0.0.1:0 --https 127.0.0.1:0",
            "http 127.0.0.1:0, http 127.0.0.1:0, https 127.0.0.1:0; first 127.0.0.1:0",
        );
        check(
            "--http 0.0.0.0:80 --http [::]:80 --https none",
            "http 0.0.0.0:80, http [::]:80; first 0.0.0.0:80",
        );
    }

    #[test]
    fn what_cannot_be() {
        check(
            "--http none --https none",
            "--http none and --https none leave the edge nothing to serve",
        );
        check(
            "--https 127.0.0.1:1 --https none",
            "--https none allows no other --https",
        );
        let twice = |line: &str, one: &str, other: &str| {
            check(
                line,
                &format!(
                    "{one} and {other} are the same place: each listener needs one of its own"
                ),
            );
        };
        twice(
            "--http 127.0.0.1:1 --http 127.0.0.1:1",
            "--http 127.0.0.1:1",
            "--http 127.0.0.1:1",
        );
        twice(
            "--http 127.0.0.1:8443",
            "--http 127.0.0.1:8443",
            "--https 0.0.0.0:8443",
        );
        twice(
            "--https [::1]:1 --metrics [::]:1",
            "--https [::1]:1",
            "--metrics [::]:1",
        );
    }
}
