//! h2spec in strict mode: every listener of ours that speaks HTTP/2.
//!
//! The suite has no words for the field by which proxies of the mesh name a destination, so the mTLS listener answers its
//! requests 400 as soon as their heads are there, and resets the streams whose bodies are still to come (RFC 9113 §8.1).
//! Some cases break a rule only in their second or third frame. Where that crosses our reset it is for a stream that is
//! over, and to be discarded (§5.1); the suite wants an error, and calls what it got last a failure: about one run in
//! seven loses one case, mostly another one. What we really get wrong fails each time.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use tokio::process::Command;

use crate::Outcome;
use crate::edge::{Edge, HOST};
use crate::origin::Origin;
use crate::sidecar::Sidecar;
use crate::tools;

/// A run takes seconds where all is well; a case that fails may wait for its own time-out first.
const PATIENCE: Duration = Duration::from_secs(900);
/// Where answers may cross a case's frames, it has failed when it failed in so many runs.
const RUNS_CROSSING: u32 = 4;

pub(crate) async fn run() -> anyhow::Result<Vec<Outcome>> {
    let origin = Origin::start().await?;
    let edge = Edge::start(origin.address).await?;
    let sidecar = Sidecar::start(origin.address).await?;
    let mut outcomes = Vec::new();
    for (listener, address, tls, runs) in [
        ("edge, TLS", edge.https, true, 1),
        ("edge, in the clear", edge.http, false, 1),
        ("sidecar, inbound in the clear", sidecar.inbound, false, 1),
        ("sidecar, inbound mTLS", sidecar.mtls, false, RUNS_CROSSING),
        ("sidecar, outbound", sidecar.outbound, false, 1),
    ] {
        let mut found = once(listener, address, tls).await?;
        for _ in 1..runs {
            if found.failed.is_empty() {
                break;
            }
            found.keep(&once(listener, address, tls).await?);
        }
        outcomes.push(Outcome {
            suite: format!("h2spec --strict, {listener}"),
            passed: found.total - found.failed.len(),
            failed: found.failed.iter().map(ToString::to_string).collect(),
        });
    }
    Ok(outcomes)
}

/// What one run found.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    total: usize,
    failed: Vec<Failure>,
}

/// A case that was not passed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Failure {
    case: String,
    /// What came instead.
    actual: Option<String>,
}

impl Found {
    /// What has failed in another run, too.
    fn keep(&mut self, other: &Self) {
        let also = |case: &str| other.failed.iter().any(|failure| failure.case == case);
        self.failed.retain(|failure| also(&failure.case));
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.actual {
            Some(actual) => write!(f, "{} ({actual})", self.case),
            None => f.write_str(&self.case),
        }
    }
}

async fn once(listener: &str, address: SocketAddr, tls: bool) -> anyhow::Result<Found> {
    let mut command = Command::new(tools::path("H2SPEC")?);
    command
        .arg("--strict")
        .args(["--host", HOST, "--port", &address.port().to_string()]);
    if tls {
        command.args(["--tls", "--insecure"]);
    }
    let printed = tools::printed(command, PATIENCE).await?;
    read(&printed).with_context(|| format!("h2spec against {listener} printed {printed}"))
}

/// From what h2spec prints: how many cases there are, and those that failed by their sections.
fn read(printed: &str) -> Option<Found> {
    // `146 tests, 145 passed, 0 skipped, 1 failed`
    let summary = printed
        .lines()
        .rfind(|line| line.contains(" tests, "))?
        .split(", ");
    let counts: Vec<usize> = summary
        .filter_map(|part| part.split(' ').next()?.parse().ok())
        .collect();
    let [total, passed, skipped, count] = counts[..] else {
        return None;
    };
    let mut failed = failures(printed);
    (failed.len() == count && passed + skipped + count == total).then_some(())?;
    let skipped = (0..skipped).map(|_| Failure {
        case: "a case was skipped".to_owned(),
        actual: None,
    });
    failed.extend(skipped);
    Some(Found { total, failed })
}

/// At the end the failed ones come again, each below the titles of its sections.
fn failures(printed: &str) -> Vec<Failure> {
    let mut failed: Vec<Failure> = Vec::new();
    let mut section = "";
    let lines = printed.lines().skip_while(|line| *line != "Failures: ");
    for line in lines.map(str::trim) {
        let numbered = line.starts_with(|first: char| first.is_ascii_digit());
        match line.strip_prefix("× ") {
            Some(case) => failed.push(Failure {
                case: format!("{section}: {case}"),
                actual: None,
            }),
            None if numbered && line.contains(". ") => section = line,
            None => {
                if let (Some(last), Some(actual)) =
                    (failed.last_mut(), line.strip_prefix("Actual: "))
                {
                    last.actual = Some(actual.to_owned());
                }
            }
        }
    }
    failed
}

#[cfg(test)]
mod tests {
    use super::{Found, read};

    #[test]
    fn what_failed_is_named() {
        let printed = "
Failures: 

Hypertext Transfer Protocol Version 2 (HTTP/2)
  3. Starting HTTP/2
    3.5. HTTP/2 Connection Preface
      × 2: Sends invalid connection preface
        -> The endpoint MUST terminate the TCP connection.
           Expected: Connection closed
             Actual: DATA Frame (length:0)

Finished in 0.3458 seconds
146 tests, 145 passed, 0 skipped, 1 failed
";
        let case = "3.5. HTTP/2 Connection Preface: 2: Sends invalid connection preface (DATA Frame (length:0))";
        let mut found = read(printed).expect("a summary");
        assert_eq!(found.total, 146);
        assert_eq!(told(&found), [case]);
        found.keep(&read(&printed.replace("DATA", "PING")).expect("a summary"));
        assert_eq!(told(&found), [case], "whatever came instead");
        let skipped = "146 tests, 145 passed, 1 skipped, 0 failed";
        let skipped = read(skipped).expect("a summary");
        assert_eq!(told(&skipped), ["a case was skipped"]);
        found.keep(&skipped);
        assert_eq!(told(&found), [""; 0]);
        assert_eq!(read("dial tcp: connection refused"), None);
    }

    fn told(found: &Found) -> Vec<String> {
        found.failed.iter().map(ToString::to_string).collect()
    }
}
