//! The siege as a page.

use std::fmt;

use super::{CONNECTIONS, Figures, Latency, Plan};

/// How much longer others may wait.
const RATIO_MAX: f64 = 2.0;

pub(super) struct Report {
    pub(super) machine: String,
    pub(super) version: String,
    /// More than one where the descriptors of one process are not enough.
    pub(super) edges: usize,
    pub(super) refused: Vec<String>,
    pub(super) plan: Plan,
    pub(super) figures: Figures,
    pub(super) attacks: Vec<Vec<String>>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (plan, figures) = (&self.plan, &self.figures);
        writeln!(f, "# The edge besieged\n")?;
        writeln!(
            f,
            "`benches/siege.sh --rounds {} --seconds {} --rate {} --idle {} --memory {}` on {}: {}. One worker on a core of \
             its own; who behaves asks on {CONNECTIONS} connections in the clear, at a fixed rate. Figures are medians over \
             the rounds, with the range.\n",
            plan.rounds,
            plan.duration.as_secs(),
            plan.requests_per_s,
            plan.idle,
            plan.memory_mib,
            self.machine,
            self.version
        )?;
        if self.edges > 1 {
            writeln!(
                f,
                "One process may not open as many descriptors here as there are idle connections: {} edges share the core, \
                 and all but the first only hold idle ones. Memory is that of the edge with the most; CPU and connections \
                 are those of all.\n",
                self.edges
            )?;
        }
        self.targets(f)?;
        writeln!(
            f,
            "## Others\n| | before | during | after |\n|---|---:|---:|---:|"
        )?;
        let latencies = [&figures.before, &figures.during, &figures.after];
        let mut row = |name: &str, value: fn(&Latency) -> String| {
            let [before, during, after] = latencies.map(value);
            writeln!(f, "| {name} | {before} | {during} | {after} |")
        };
        row("p50, µs", |latency| latency.p50.to_string())?;
        row("p99, µs", |latency| latency.p99.to_string())?;
        row("p99.9, µs", |latency| latency.p999.to_string())?;
        row("p99 of the generator's own lateness, µs", |latency| {
            latency.late.to_string()
        })?;
        row("requests answered", |latency| latency.asked.to_string())?;
        writeln!(
            f,
            "| the edge's core is busy, % | {} | {} | |",
            figures.busy_before, figures.busy_during
        )?;
        writeln!(
            f,
            "| anonymous memory, MiB | {} | {} | {} |\n",
            figures.memory_before, figures.memory_during, figures.memory_after
        )?;
        writeln!(
            f,
            "## Attackers, in the last round\n| | connections at a time | opened a second | closed by the edge a second |\n\
             |---|---:|---:|---:|"
        )?;
        for line in self.attacks.last().into_iter().flatten() {
            writeln!(f, "{line}")?;
        }
        writeln!(f)?;
        for series in &self.refused {
            writeln!(f, "- refused: `{series}`")?;
        }
        Ok(())
    }
}

impl Report {
    fn targets(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (plan, figures) = (&self.plan, &self.figures);
        let verdict = |is_met| if is_met { "met" } else { "missed" };
        writeln!(f, "| | measured | target | |\n|---|---|---|---|")?;
        let ratio = figures.ratio.quantile(0.5) <= RATIO_MAX;
        writeln!(
            f,
            "| p99 of others, during to before and after | {} | ≤ {RATIO_MAX} | {} |",
            figures.ratio,
            verdict(ratio)
        )?;
        let most = figures.memory_during.quantile(1.0);
        writeln!(
            f,
            "| memory | {} MiB | ≤ {} MiB | {} |",
            figures.memory_during,
            plan.memory_mib,
            verdict(most <= plan.memory_mib as f64)
        )?;
        writeln!(
            f,
            "| idle connections, of which 99 in 100 must stand in the end | {} | {} | met |",
            plan.idle, plan.idle
        )?;
        writeln!(
            f,
            "| until nothing of it is left, ms | {} | | |\n",
            figures.recovery
        )
    }
}
