//! The comparison as a page.

use std::collections::BTreeMap;
use std::fmt;

use super::figure::{Results, Row, Target, Verdict};
use super::peer::Kind;

pub(crate) struct Report {
    pub(crate) machine: String,
    pub(crate) versions: Vec<String>,
    pub(crate) rounds: usize,
    pub(crate) seconds: u64,
    pub(crate) notes: BTreeMap<String, String>,
    pub(crate) results: Results,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "# The edge beside its peers\n")?;
        writeln!(
            f,
            "`benches/compare.sh --rounds {} --seconds {}` on {}. Proxies have one worker on a core of their own; load and \
             origin have others, or share one of two. Figures are medians over the rounds, with the range.\n",
            self.rounds, self.seconds, self.machine
        )?;
        for version in &self.versions {
            writeln!(f, "- {version}")?;
        }
        writeln!(f, "\n![What Meshgate and its peers need](comparison.svg)\n")?;
        self.targets(f)?;
        self.figures(f)?;
        for (about, note) in &self.notes {
            writeln!(f, "- {about}: {note}")?;
        }
        for failure in &self.results.failures {
            writeln!(f, "- Failed: {failure}")?;
        }
        Ok(())
    }
}

impl Report {
    fn targets(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = self.results.rows.iter();
        let mut judged = rows
            .filter(|row| row.figure.target != Target::None)
            .peekable();
        if judged.peek().is_none() {
            return Ok(());
        }
        writeln!(f, "## Targets")?;
        writeln!(f, "| Meshgate | measured | target | |\n|---|---|---|---|")?;
        for row in judged {
            writeln!(f, "{}", target_line(row))?;
        }
        writeln!(f)
    }

    fn figures(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "## All figures")?;
        write!(f, "| |")?;
        Kind::ALL
            .iter()
            .try_for_each(|kind| write!(f, " {kind} |"))?;
        writeln!(f, "\n|---|{}", "---:|".repeat(Kind::ALL.len()))?;
        for row in &self.results.rows {
            write!(f, "| {}, {} |", row.figure.name, row.figure.unit)?;
            for kind in Kind::ALL {
                match row.of(kind) {
                    _ if !row.figure.is_of(kind) => write!(f, " |")?,
                    series if series.is_empty() => write!(f, " failed |")?,
                    series => write!(f, " {series} |")?,
                }
            }
            writeln!(f)?;
        }
        writeln!(f)
    }
}

fn target_line(row: &Row) -> String {
    let figure = row.figure;
    let (unit, limit) = match figure.target {
        Target::None => (String::new(), String::new()),
        Target::Part(limit, kind) => (format!(" of {kind}'s"), format!("{limit:.2}")),
        Target::AtMost(limit) => (format!(" {}", figure.unit), format!("{limit}")),
    };
    let (measured, verdict) = match row.verdict() {
        None => ("not measured".to_owned(), "missed"),
        Some(verdict) => (
            shown(verdict, &unit),
            if verdict.is_met() { "met" } else { "missed" },
        ),
    };
    let name = match figure.target {
        Target::Part(..) => format!("{}, {}", figure.name, figure.unit),
        _ => figure.name.to_owned(),
    };
    format!("| {name} | {measured} | ≤ {limit}{unit} | {verdict} |")
}

fn shown(verdict: Verdict, unit: &str) -> String {
    let Verdict {
        value, least, most, ..
    } = verdict;
    format!("{value:.2} ({least:.2}-{most:.2}){unit}")
}

#[cfg(test)]
mod tests {
    use super::super::figure::Figure;
    use super::*;

    static COST: Figure =
        Figure::of_all("HTTP/1", "µs CPU/request", Target::Part(0.85, Kind::Nginx));
    static MEMORY: Figure = Figure::of_all("idle process", "MiB", Target::AtMost(15.0));

    fn check(figure: &'static Figure, values: &[(Kind, f64)], expected: &str) {
        let mut results = Results::default();
        for (kind, value) in values {
            results.push(figure, *kind, *value);
        }
        assert_eq!(target_line(&results.rows[0]), expected);
    }

    #[test]
    fn targets_are_judged() {
        check(
            &COST,
            &[(Kind::Meshgate, 8.0), (Kind::Nginx, 10.0)],
            "| HTTP/1, µs CPU/request | 0.80 (0.80-0.80) of nginx's | ≤ 0.85 of nginx's | met |",
        );
        check(
            &COST,
            &[(Kind::Nginx, 10.0)],
            "| HTTP/1, µs CPU/request | not measured | ≤ 0.85 of nginx's | missed |",
        );
        check(
            &MEMORY,
            &[(Kind::Meshgate, 15.5)],
            "| idle process | 15.50 (15.50-15.50) MiB | ≤ 15 MiB | missed |",
        );
    }
}
