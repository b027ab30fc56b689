//! Programs that the suites are made of, by the names that `run.sh` gives them.

use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::process::Command;

/// The path in a variable of the environment.
pub(crate) fn path(variable: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::var_os(variable)
        .with_context(|| format!("{variable} is not set: start tests/foreign/run.sh instead"))?;
    Ok(path.into())
}

/// Runs a program to its end, whatever that is; what it printed, on both outputs.
pub(crate) async fn printed(command: Command, patience: Duration) -> anyhow::Result<String> {
    let (_, printed) = ended(command, patience).await?;
    Ok(printed)
}

/// Runs a program to its end; what it printed, if that was a failure.
pub(crate) async fn succeeds(
    command: Command,
    patience: Duration,
) -> anyhow::Result<Result<(), String>> {
    let (status, printed) = ended(command, patience).await?;
    Ok(match status.success() {
        true => Ok(()),
        false => Err(printed),
    })
}

async fn ended(mut command: Command, patience: Duration) -> anyhow::Result<(ExitStatus, String)> {
    let shown = format!("{:?}", command.as_std());
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let Ok(output) = tokio::time::timeout(patience, command.output()).await else {
        bail!("{shown} did not end within {} s", patience.as_secs());
    };
    let output = output.with_context(|| shown)?;
    let both = [output.stdout, output.stderr].concat();
    Ok((output.status, String::from_utf8_lossy(&both).into_owned()))
}
