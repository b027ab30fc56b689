//! `meshgate inject`: what the webhook would do, before anything is applied.

use std::io::{Read, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use meshgate_push::inject::{InjectOptions, inject_manifest};

pub(crate) fn run(file: &Path) -> anyhow::Result<ExitCode> {
    let named = || format!("manifest {}", file.display());
    let manifest = if file == Path::new("-") {
        let mut text = String::new();
        std::io::stdin()
            .read_to_string(&mut text)
            .context("standard input")?;
        text
    } else {
        std::fs::read_to_string(file).with_context(named)?
    };
    let (injected, notes) =
        inject_manifest(&manifest, &InjectOptions::default()).with_context(named)?;
    std::io::stdout()
        .write_all(injected.as_bytes())
        .context("cannot write the manifest")?;
    let mut errors = std::io::stderr();
    for note in notes {
        let became = match note.left {
            None => "has a sidecar now".to_owned(),
            Some(reason) => reason.to_string(),
        };
        writeln!(errors, "{}: {became}", note.object).context("cannot write notes")?;
    }
    Ok(ExitCode::SUCCESS)
}
