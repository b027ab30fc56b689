//! What is measured and what it should be; the values of all proxies.

use super::peer::Kind;
use crate::figures::Series;

/// A thing that is measured.
#[derive(Debug, PartialEq)]
pub(crate) struct Figure {
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) target: Target,
    pub(crate) among: Among,
}

/// Whose figure it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Among {
    All,
    /// Its peers have nothing like it.
    Meshgate,
}

impl Figure {
    pub(crate) const fn of_all(name: &'static str, unit: &'static str, target: Target) -> Self {
        let among = Among::All;
        Self {
            name,
            unit,
            target,
            among,
        }
    }

    pub(crate) const fn of_meshgate(
        name: &'static str,
        unit: &'static str,
        target: Target,
    ) -> Self {
        let among = Among::Meshgate;
        Self {
            name,
            unit,
            target,
            among,
        }
    }

    pub(crate) fn is_of(&self, kind: Kind) -> bool {
        kind == Kind::Meshgate || self.among == Among::All
    }
}

/// For Meshgate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Target {
    None,
    /// At most this part of what another needs.
    Part(f64, Kind),
    AtMost(f64),
}

/// What counts as 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Scale {
    /// What another needs, round by round.
    Of(Kind),
    By(f64),
}

/// Values of one figure, a proxy a series, in the order of the rounds.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) figure: &'static Figure,
    series: [Series; Kind::ALL.len()],
}

/// Everything that was measured, in the order in which it came.
#[derive(Debug, Default)]
pub(crate) struct Results {
    pub(crate) rows: Vec<Row>,
    /// What could not be measured, and why.
    pub(crate) failures: Vec<String>,
}

/// Meshgate's value against its target.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Verdict {
    /// A ratio of medians where another is the measure, else the median.
    pub(crate) value: f64,
    /// The same of each round.
    pub(crate) least: f64,
    pub(crate) most: f64,
    pub(crate) limit: f64,
}

impl Verdict {
    pub(crate) fn is_met(&self) -> bool {
        self.value <= self.limit
    }
}

impl Results {
    pub(crate) fn failed(&mut self, what: &str, error: &anyhow::Error) {
        self.failures.push(format!("{what}: {error:#}"));
    }

    pub(crate) fn push(&mut self, figure: &'static Figure, kind: Kind, value: f64) {
        let index = self.rows.iter().position(|row| row.figure == figure);
        let index = index.unwrap_or_else(|| {
            let series = Default::default();
            self.rows.push(Row { figure, series });
            self.rows.len() - 1
        });
        self.rows[index].series[kind as usize].push(value);
    }
}

impl Row {
    pub(crate) fn of(&self, kind: Kind) -> &Series {
        &self.series[kind as usize]
    }

    /// What a proxy needs on a scale: medians, and the range of what the rounds say.
    pub(crate) fn ratio(&self, kind: Kind, scale: Scale) -> Option<(f64, f64, f64)> {
        let ours = self.of(kind);
        if ours.is_empty() {
            return None;
        }
        let to = match scale {
            Scale::Of(to) => to,
            Scale::By(unit) => {
                let [value, least, most] = [0.5, 0.0, 1.0].map(|part| ours.quantile(part) / unit);
                return Some((value, least, most));
            }
        };
        let theirs = self.of(to);
        if theirs.is_empty() {
            return None;
        }
        let rounds = ours.iter().zip(theirs.iter());
        let mut ratios = Series::default();
        rounds.for_each(|(ours, theirs)| ratios.push(ours / theirs));
        let ratio = ours.quantile(0.5) / theirs.quantile(0.5);
        Some((ratio, ratios.quantile(0.0), ratios.quantile(1.0)))
    }

    /// `None` without a target, and without values.
    pub(crate) fn verdict(&self) -> Option<Verdict> {
        let (limit, scale) = match self.figure.target {
            Target::None => return None,
            Target::Part(limit, to) => (limit, Scale::Of(to)),
            Target::AtMost(limit) => (limit, Scale::By(1.0)),
        };
        let (value, least, most) = self.ratio(Kind::Meshgate, scale)?;
        Some(Verdict {
            value,
            least,
            most,
            limit,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static COST: Figure = Figure::of_all("cost", "µs", Target::Part(0.85, Kind::Nginx));
    static MEMORY: Figure = Figure::of_all("memory", "MiB", Target::AtMost(15.0));

    fn check(
        figure: &'static Figure,
        values: &[(Kind, f64)],
        expected: Option<(f64, f64, f64, bool)>,
    ) {
        let mut results = Results::default();
        for (kind, value) in values {
            results.push(figure, *kind, *value);
        }
        let verdict = results.rows[0].verdict();
        let verdict = verdict.map(|v| (v.value, v.least, v.most, v.is_met()));
        assert_eq!(verdict, expected);
    }

    #[test]
    fn medians_are_held_against_targets() {
        use Kind::{Haproxy, Meshgate, Nginx};
        let values = [
            (Meshgate, 8.0),
            (Nginx, 10.0),
            (Meshgate, 9.0),
            (Nginx, 12.0),
        ];
        check(&COST, &values, Some((0.75, 0.75, 0.8, true)));
        check(
            &COST,
            &[(Meshgate, 9.0), (Nginx, 10.0)],
            Some((0.9, 0.9, 0.9, false)),
        );
        check(&COST, &[(Meshgate, 9.0), (Haproxy, 10.0)], None);
        check(
            &MEMORY,
            &[(Meshgate, 15.0), (Nginx, 5.0)],
            Some((15.0, 15.0, 15.0, true)),
        );
        check(&MEMORY, &[(Nginx, 5.0)], None);
    }
}
