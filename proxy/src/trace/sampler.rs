//! Which requests have spans. Pure.

use std::fmt;
use std::str::FromStr;

use super::TraceParent;

/// As in `OTEL_TRACES_SAMPLER`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampler {
    /// Who asks decides; `root` only where nobody did.
    pub parent_based: bool,
    /// The share of traces, by their ids: every proxy and application with the same share chooses the same traces.
    pub root: Ratio,
}

impl Default for Sampler {
    fn default() -> Self {
        Self {
            parent_based: true,
            root: Ratio::ALL,
        }
    }
}

impl Sampler {
    /// By its standard name and, for shares, its argument; `None` for what is not known.
    pub(super) fn named(name: &str, argument: Option<Ratio>) -> Option<Self> {
        let (parent_based, root) = match name.strip_prefix("parentbased_") {
            Some(root) => (true, root),
            None => (false, name),
        };
        let root = match root {
            "always_on" => Ratio::ALL,
            "always_off" => Ratio::NONE,
            "traceidratio" => argument.unwrap_or(Ratio::ALL),
            _ => return None,
        };
        Some(Self { parent_based, root })
    }

    pub(super) fn samples(self, parent: Option<TraceParent>, trace_id: u128) -> bool {
        match parent {
            Some(parent) if self.parent_based => parent.sampled,
            _ => self.root.samples(trace_id),
        }
    }
}

/// A share from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ratio(f64);

impl Ratio {
    /// Each trace.
    pub const ALL: Self = Self(1.0);
    /// No trace.
    pub const NONE: Self = Self(0.0);

    /// The lowest 63 bits, as OpenTelemetry's own samplers take them.
    fn samples(self, trace_id: u128) -> bool {
        let number = (trace_id as u64) >> 1;
        let bound = (self.0 * (1_u64 << 63) as f64) as u64;
        number < bound
    }
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Ratio {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = text.parse().ok();
        number
            .filter(|number| (0.0..=1.0).contains(number))
            .map(Self)
            .ok_or_else(|| format!("{text:?} is no share from 0 to 1"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_decides() {
        fn check(name: &str, expected: [bool; 4]) {
            let half = "0.5".parse().ok();
            let sampler = Sampler::named(name, half).unwrap();
            let parent = |sampled| {
                Some(TraceParent {
                    trace_id: 1,
                    span: 1,
                    sampled,
                })
            };
            // Of the traces chosen by half of all, the first is one.
            let (low, high) = (1, u128::from(u64::MAX));
            let decided = [
                sampler.samples(None, low),
                sampler.samples(None, high),
                sampler.samples(parent(false), low),
                sampler.samples(parent(true), high),
            ];
            assert_eq!(decided, expected, "{name}");
        }
        check("always_on", [true, true, true, true]);
        check("always_off", [false, false, false, false]);
        check("traceidratio", [true, false, true, false]);
        check("parentbased_always_on", [true, true, false, true]);
        check("parentbased_always_off", [false, false, false, true]);
        check("parentbased_traceidratio", [true, false, false, true]);
        assert_eq!(Sampler::named("jaeger_remote", None), None);
    }

    #[test]
    fn shares() {
        for wrong in ["", "x", "-0.1", "1.1", "NaN", "inf"] {
            assert!(wrong.parse::<Ratio>().is_err(), "{wrong}");
        }
        let quarter: Ratio = "0.25".parse().unwrap();
        let chosen = (0..1000_u128).filter(|n| quarter.samples(n << 54));
        assert_eq!(chosen.count(), 256);
        assert!(Ratio::ALL.samples(u128::MAX) && !Ratio::NONE.samples(0));
    }
}
