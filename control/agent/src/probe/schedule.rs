//! When to probe next and what the results mean: pure.
//!
//! The kubelet probes once a period. Here a container that is not ready yet is asked again after a short, growing wait,
//! so that it is ready when it is, not up to a period later. Such early attempts count when they pass; failures count
//! once a period, so that the thresholds mean what they say.

use std::time::Duration;

use k8s_openapi::api::core::v1::Probe;
use tokio::time::Instant;

use super::ProbeKind;

/// First wait of an early attempt.
const EARLY_MIN: Duration = Duration::from_millis(20);
/// The same for commands, each of which costs a process.
const EARLY_EXEC_MIN: Duration = Duration::from_millis(200);

/// Until this wait they double.
const EARLY_STEEP: Duration = Duration::from_millis(80);

/// What the results so far say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Passes,
    Fails,
    Undecided,
}

/// The schedule of one probe.
#[derive(Debug)]
pub(super) struct Schedule {
    kind: ProbeKind,
    period: Duration,
    initial_delay: Duration,
    success_threshold: u32,
    failure_threshold: u32,
    early: Duration,
    passes: u32,
    failures: u32,
    last_failure: Option<Instant>,
    counted: bool,
    /// The last verdict.
    passing: bool,
}

impl Schedule {
    pub(super) fn new(kind: ProbeKind, probe: &Probe) -> Schedule {
        let seconds = |value: Option<i32>, default: u64| {
            Duration::from_secs(value.and_then(|v| u64::try_from(v).ok()).unwrap_or(default))
        };
        let count = |value: Option<i32>, default: u32| {
            value
                .and_then(|v| u32::try_from(v).ok())
                .unwrap_or(default)
                .max(1)
        };
        let period = seconds(probe.period_seconds, 10).max(Duration::from_secs(1));
        let early = match probe.exec {
            Some(_) => EARLY_EXEC_MIN,
            None => EARLY_MIN,
        };
        let delay = seconds(probe.initial_delay_seconds, 0);
        Schedule {
            kind,
            period,
            // A program that has just started is not dead: asking at once would only count its start against it.
            initial_delay: match kind {
                ProbeKind::Liveness => delay.max(period),
                ProbeKind::Startup | ProbeKind::Readiness => delay,
            },
            success_threshold: count(probe.success_threshold, 1),
            failure_threshold: count(probe.failure_threshold, 3),
            early,
            passes: 0,
            failures: 0,
            last_failure: None,
            counted: false,
            passing: false,
        }
    }

    pub(super) fn initial_delay(&self) -> Duration {
        self.initial_delay
    }

    /// Takes the result of an attempt made at `at`: the verdict, and the wait from `at` to the next attempt.
    pub(super) fn result(&mut self, passed: bool, at: Instant) -> (Verdict, Duration) {
        if passed {
            self.failures = 0;
            self.last_failure = None;
            self.counted = false;
            self.passes += 1;
            if self.passes >= self.success_threshold {
                self.passing = true;
                return (Verdict::Passes, self.period);
            }
            return (Verdict::Undecided, self.period);
        }
        self.passes = 0;
        self.counted = self
            .last_failure
            .is_none_or(|before| at.duration_since(before) >= self.period);
        if self.counted {
            self.failures += 1;
            self.last_failure = Some(at);
        }
        let eager = self.kind != ProbeKind::Liveness && !self.passing;
        if self.failures >= self.failure_threshold {
            self.passing = false;
            return (Verdict::Fails, self.period);
        }
        let wait = if eager {
            let wait = self.early.min(self.period);
            // Fast at first, then so that an attempt comes at most a quarter of the time so far too late.
            self.early = match self.early < EARLY_STEEP {
                true => self.early * 2,
                false => self.early * 5 / 4,
            };
            wait
        } else {
            self.period
        };
        (Verdict::Undecided, wait)
    }

    /// Whether the last failure was one that counts, and that people should hear of.
    pub(super) fn last_counted(&self) -> bool {
        self.counted && (self.failures > 1 || self.passing || self.kind == ProbeKind::Liveness)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plays results (`+` passed, `-` failed) at the times the schedule asks for: `ms:verdict` each.
    fn check(kind: ProbeKind, probe: serde_json::Value, results: &str, wanted: &str) {
        let probe: Probe = serde_json::from_value(probe).expect("a probe");
        let mut schedule = Schedule::new(kind, &probe);
        let start = Instant::now();
        let mut at = start + schedule.initial_delay();
        let mut shown = Vec::new();
        for result in results.chars() {
            let (verdict, wait) = schedule.result(result == '+', at);
            let mark = match verdict {
                Verdict::Passes => "pass",
                Verdict::Fails => "fail",
                Verdict::Undecided => "?",
            };
            shown.push(format!("{}:{mark}", (at - start).as_millis()));
            at += wait;
        }
        assert_eq!(shown.join(" "), wanted);
    }

    #[test]
    fn probes_are_scheduled() {
        use ProbeKind::{Liveness, Readiness, Startup};
        let plain = serde_json::json!({"periodSeconds": 1});
        check(Readiness, plain.clone(), "--+-", "0:? 20:? 60:pass 1060:?");
        check(
            Readiness,
            plain.clone(),
            "+---",
            "0:pass 1000:? 2000:? 3000:fail",
        );
        check(
            Startup,
            serde_json::json!({"periodSeconds": 1, "failureThreshold": 2}),
            "----------",
            "0:? 20:? 60:? 140:? 240:? 365:? 521:? 716:? 960:? 1265:fail",
        );
        check(Liveness, plain, "---", "1000:? 2000:? 3000:fail");
        check(
            Readiness,
            serde_json::json!({"initialDelaySeconds": 5, "successThreshold": 2}),
            "++",
            "5000:? 15000:pass",
        );
        check(
            Readiness,
            serde_json::json!({"exec": {"command": ["x"]}, "periodSeconds": 1}),
            "--+",
            "0:? 200:? 450:pass",
        );
    }
}
