//! Medians and ranges.

use std::fmt;

/// Measurements of one thing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Series(Vec<f64>);

impl Series {
    pub(crate) fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// In the order in which they were made.
    pub(crate) fn iter(&self) -> impl Iterator<Item = f64> {
        self.0.iter().copied()
    }

    /// The value that `part` of the measurements do not exceed.
    pub(crate) fn quantile(&self, part: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len().saturating_sub(1);
        let index = (last as f64 * part).round() as usize;
        sorted.get(index).copied().unwrap_or(f64::NAN)
    }
}

impl fmt::Display for Series {
    /// `12.3 (11.9-14.0)`, with three digits that count.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [median, least, most] = [0.5, 0.0, 1.0].map(|part| self.quantile(part));
        let digits = match median {
            median if median >= 100.0 => 0,
            median if median >= 10.0 => 1,
            _ => 2,
        };
        f.pad(&format!(
            "{median:.digits$} ({least:.digits$}-{most:.digits$})"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::Series;

    fn check(values: &[f64], expected: &str) {
        let mut series = Series::default();
        values.iter().for_each(|value| series.push(*value));
        assert_eq!(series.to_string(), expected);
    }

    #[test]
    fn the_median_is_in_the_middle() {
        check(&[3.0, 1.0, 2.0], "2.00 (1.00-3.00)");
        check(&[1500.4], "1500 (1500-1500)");
        check(&[12.34, 11.0, 15.0, 12.0, 13.0], "12.3 (11.0-15.0)");
    }
}
