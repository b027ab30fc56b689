//! Suites that others wrote, against our edge and our sidecar: `tests/foreign/run.sh` installs and starts them.

mod edge;
mod grpc;
mod h2spec;
mod listen;
mod origin;
mod sidecar;
mod slow;
mod tools;
mod websocket;

use std::process::ExitCode;

use anyhow::{Context as _, bail};

/// What a suite found: its name for people, and every case that failed, each with its reason.
struct Outcome {
    suite: String,
    passed: usize,
    failed: Vec<String>,
}

const SUITES: [&str; 4] = ["h2spec", "grpc", "websocket", "slow"];

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let mut wanted: Vec<String> = std::env::args().skip(1).collect();
    if wanted.is_empty() {
        wanted = SUITES.map(str::to_owned).to_vec();
    }
    let mut outcomes = Vec::new();
    for suite in &wanted {
        outcomes.extend(run(suite).await.with_context(|| suite.clone())?);
    }
    Ok(report(&outcomes))
}

async fn run(suite: &str) -> anyhow::Result<Vec<Outcome>> {
    match suite {
        "h2spec" => h2spec::run().await,
        "grpc" => grpc::run().await,
        "websocket" => websocket::run().await,
        "slow" => slow::run().await,
        other => bail!("no suite {other:?}; there are {}", SUITES.join(", ")),
    }
}

/// The last line is what runners of tests are known by.
#[expect(clippy::print_stdout, reason = "the report is what the program is for")]
fn report(outcomes: &[Outcome]) -> ExitCode {
    println!();
    for outcome in outcomes {
        let (suite, passed, failed) = (&outcome.suite, outcome.passed, outcome.failed.len());
        println!("{suite}: {passed} passed, {failed} failed");
        for case in &outcome.failed {
            println!("    {case}");
        }
    }
    let passed: usize = outcomes.iter().map(|outcome| outcome.passed).sum();
    let failed: usize = outcomes.iter().map(|outcome| outcome.failed.len()).sum();
    println!("{passed} passed, {failed} failed");
    match failed {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}
