//! h2spec in strict mode: every listener of ours that speaks HTTP/2.

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

pub(crate) async fn run() -> anyhow::Result<Vec<Outcome>> {
    let origin = Origin::start().await?;
    let edge = Edge::start(origin.address).await?;
    let sidecar = Sidecar::start(origin.address).await?;
    let mut outcomes = Vec::new();
    for (listener, address, tls) in [
        ("edge, TLS", edge.https, true),
        ("edge, in the clear", edge.http, false),
        ("sidecar, inbound in the clear", sidecar.inbound, false),
        ("sidecar, inbound mTLS", sidecar.mtls, false),
        ("sidecar, outbound", sidecar.outbound, false),
    ] {
        outcomes.push(judge(listener, address, tls).await?);
    }
    Ok(outcomes)
}

async fn judge(listener: &str, address: SocketAddr, tls: bool) -> anyhow::Result<Outcome> {
    let mut command = Command::new(tools::path("H2SPEC")?);
    command
        .arg("--strict")
        .args(["--host", HOST, "--port", &address.port().to_string()]);
    if tls {
        command.args(["--tls", "--insecure"]);
    }
    let printed = tools::printed(command, PATIENCE).await?;
    let (passed, failed) =
        read(&printed).with_context(|| format!("h2spec against {listener} printed {printed}"))?;
    Ok(Outcome {
        suite: format!("h2spec --strict, {listener}"),
        passed,
        failed,
    })
}

/// From what h2spec prints: how many cases passed, and those that failed by their sections.
fn read(printed: &str) -> Option<(usize, Vec<String>)> {
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
    (failed.len() == count).then_some(())?;
    if skipped > 0 {
        failed.push(format!("{skipped} of {total} cases were skipped"));
    }
    Some((passed, failed))
}

/// At the end the failed ones come again, each below the titles of its sections.
fn failures(printed: &str) -> Vec<String> {
    let mut failed: Vec<String> = Vec::new();
    let mut section = "";
    let lines = printed.lines().skip_while(|line| *line != "Failures: ");
    for line in lines.map(str::trim) {
        let numbered = line.starts_with(|first: char| first.is_ascii_digit());
        match line.strip_prefix("× ") {
            Some(case) => failed.push(format!("{section}: {case}")),
            None if numbered && line.contains(". ") => section = line,
            None => {
                if let (Some(last), Some(actual)) =
                    (failed.last_mut(), line.strip_prefix("Actual: "))
                {
                    *last += &format!(" ({actual})");
                }
            }
        }
    }
    failed
}

#[cfg(test)]
mod tests {
    use super::read;

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
        assert_eq!(read(printed), Some((145, vec![case.to_owned()])));
        let skipped = "146 tests, 145 passed, 1 skipped, 0 failed";
        let found = read(skipped).expect("a summary");
        assert_eq!(found.1, ["1 of 146 cases were skipped"]);
        assert_eq!(read("dial tcp: connection refused"), None);
    }
}
