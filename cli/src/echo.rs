//! `meshgate echo` and its client.

use std::process::ExitCode;

use anyhow::Context;

use crate::args::{EchoArgs, EchoCommand};
use crate::runtime;

pub(crate) fn run(args: EchoArgs) -> anyhow::Result<ExitCode> {
    let runtime = runtime::current_thread()?;
    match args.command {
        None => runtime.block_on(async {
            let shutdown = runtime::shutdown_on_signal()?;
            let options = meshgate_echo::ServeOptions::from_env().context("the environment")?;
            meshgate_echo::serve(options, shutdown)
                .await
                .context("the echo server")?;
            Ok(ExitCode::SUCCESS)
        }),
        Some(EchoCommand::Call {
            url,
            count,
            method,
            headers,
            data,
            insecure,
        }) => {
            let headers = headers
                .iter()
                .map(|h| header(h))
                .collect::<anyhow::Result<_>>()?;
            let options = meshgate_echo::CallOptions {
                url,
                count: u32::try_from(count).context("--count is too large")?,
                headers,
                data,
                method,
                insecure,
                ..meshgate_echo::CallOptions::default()
            };
            let summary = runtime.block_on(meshgate_echo::call(options, &mut std::io::stdout()))?;
            Ok(if summary.failed == 0 {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            })
        }
    }
}

fn header(text: &str) -> anyhow::Result<(String, String)> {
    let (name, value) = text
        .split_once(':')
        .with_context(|| format!("--header {text:?}: `Name: value` is needed"))?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}
