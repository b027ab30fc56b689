//! `--check`: says what is wrong with files, and serves nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;

use super::configuration::{Configuration, Summary};
use super::files::{self, Watcher};
use super::place::Fault;

/// Warnings are told and fail nothing; errors do.
pub(crate) fn check(paths: &[PathBuf]) -> anyhow::Result<ExitCode> {
    let mut configuration = Configuration::new()?;
    let taken = configuration.take(files::read(paths, &mut Nobody));
    let (mut out, mut errors) = (std::io::stdout(), std::io::stderr());
    let mut tell = |word: &str, faults: &BTreeSet<Fault>| {
        faults
            .iter()
            .try_for_each(|fault| writeln!(errors, "{word}: {fault}"))
            .context("cannot write what is wrong")
    };
    let accepted = match taken {
        Ok(accepted) => accepted,
        Err(faults) => {
            tell("error", &faults)?;
            anyhow::bail!("{}", count(faults.len(), "error"));
        }
    };
    tell("warning", &accepted.warnings)?;
    let refusals = meshgate_ingress::refusals(configuration.changes(0).updated);
    if !refusals.is_empty() {
        tell("error", &configuration.refused(&refusals))?;
        anyhow::bail!("{}", count(refusals.len(), "error"));
    }
    let warnings = match accepted.warnings.len() {
        0 => String::new(),
        some => format!("; {}", count(some, "warning")),
    };
    writeln!(out, "{}{warnings}", accepted.summary).context("cannot write the summary")?;
    Ok(ExitCode::SUCCESS)
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let list = |counts: Vec<String>| match counts.is_empty() {
            true => "nothing".to_owned(),
            false => counts.join(", "),
        };
        let objects = self
            .objects
            .iter()
            .map(|(kind, number)| of_kind(*number, kind));
        write!(
            f,
            "{}: {}",
            count(self.files, "file"),
            list(objects.collect())
        )?;
        let others: BTreeMap<_, _> = self.others.iter().collect();
        if others.is_empty() {
            return Ok(());
        }
        let others = others
            .into_iter()
            .map(|(kind, number)| of_kind(*number, kind));
        write!(f, "; left aside: {}", list(others.collect()))
    }
}

fn of_kind(number: usize, kind: &str) -> String {
    format!("{number} {kind}")
}

pub(super) fn count(number: usize, word: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {word}{plural}")
}

/// Nothing is waited for.
struct Nobody;

impl Watcher for Nobody {
    fn folder(&mut self, _: &Path) {}
    fn name(&mut self, _: &Path, _: &OsStr) {}
}
