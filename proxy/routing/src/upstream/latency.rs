//! How long an endpoint takes, as a balancer sees it: quick to believe the worst, slow to forget it ("peak EWMA").

use std::time::Duration;

use crate::time::{Time, nanos};

/// In this time an old measurement loses all but a third of its weight.
const DECAY: Duration = Duration::from_secs(10);
/// Of an endpoint that has not answered yet.
const ASSUMED: Duration = Duration::from_millis(30);

/// A moving average of an endpoint's latency.
#[derive(Clone, Copy, Debug)]
pub struct Latency {
    nanos: f64,
    /// When that was measured; `None`: never.
    at: Option<Time>,
}

impl Default for Latency {
    fn default() -> Self {
        Self {
            nanos: nanos(ASSUMED) as f64,
            at: None,
        }
    }
}

impl Latency {
    /// The endpoint answered after this time. A longer one than expected counts whole at once.
    pub fn answered(&mut self, after: Duration, now: Time) {
        let measured = nanos(after) as f64;
        let old = self.weight(now);
        self.nanos = match measured > self.nanos {
            true => measured,
            false => self.nanos * old + measured * (1.0 - old),
        };
        self.at = Some(now);
    }

    /// The endpoint failed, or refused for being busy, after this time: that it was quick is nothing good, and it is as
    /// little worth a try as one that was just measured.
    pub fn failed(&mut self, after: Duration, now: Time) {
        self.nanos = self.nanos.max(nanos(after) as f64);
        self.at = Some(now);
    }

    /// What one more request costs there, in nanoseconds. An idle endpoint becomes cheaper by and by, so that one that was
    /// slow once is tried again; one request at a time, until it has answered. Not so one that asked for a pause.
    pub fn cost(&self, in_flight: u32, is_paused: bool, now: Time) -> u64 {
        let each = match in_flight {
            0 if !is_paused => self.nanos * self.weight(now),
            _ => self.nanos,
        };
        // As a cast does: too much is the most.
        (each * (f64::from(in_flight) + 1.0)) as u64
    }

    /// Of what was measured before.
    fn weight(&self, now: Time) -> f64 {
        let ago = |at| now.since(at).as_secs_f64();
        self.at
            .map_or(0.0, |at| (-ago(at) / DECAY.as_secs_f64()).exp())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: f64) -> Time {
        Time::since_origin(Duration::from_secs_f64(seconds))
    }

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// What the next request costs, in microseconds, after answers at moments in seconds.
    fn check(answers: &[(f64, Duration)], (in_flight, now): (u32, f64), expected: u64) {
        let mut latency = Latency::default();
        for (moment, after) in answers {
            latency.answered(*after, at(*moment));
        }
        let cost = latency.cost(in_flight, false, at(now)) / 1000;
        assert_eq!(cost, expected, "{answers:?}, then at {now} s");
    }

    #[test]
    fn the_worst_is_believed_at_once_and_forgotten_slowly() {
        // Nothing is known of it: it gets one request, then others are better.
        check(&[], (0, 0.0), 0);
        check(&[], (1, 0.0), 60_000);
        check(&[(1000.0, ms(5))], (0, 1000.0), 5_000);
        check(&[(1000.0, ms(5))], (3, 1000.0), 20_000);
        check(&[(1000.0, ms(5)), (1000.1, ms(900))], (0, 1000.1), 900_000);
        // A tenth of a second of good answers is little against it, ten seconds are two thirds.
        check(&[(1000.0, ms(900)), (1000.1, ms(5))], (0, 1000.1), 891_094);
        check(&[(1000.0, ms(900)), (1010.0, ms(5))], (0, 1010.0), 334_252);
        // Idle, it becomes worth a try.
        check(&[(1000.0, ms(900))], (0, 1100.0), 40);
        check(&[(1000.0, ms(900))], (1, 1100.0), 1_800_000);
    }

    #[test]
    fn failing_quickly_makes_nobody_attractive() {
        let mut latency = Latency::default();
        latency.answered(ms(50), at(100.0));
        latency.failed(ms(1), at(100.0));
        assert_eq!(latency.cost(0, false, at(100.0)), 50_000_000);
        latency.failed(ms(70), at(100.0));
        assert_eq!(latency.cost(0, false, at(100.0)), 70_000_000);
        // Who fails now and then for long stays as dear as it was.
        for minute in 2..5 {
            latency.failed(ms(1), at(f64::from(minute) * 60.0));
        }
        assert_eq!(latency.cost(0, false, at(240.0)), 70_000_000);
        assert_eq!(latency.cost(0, true, at(300.0)), 70_000_000);
        let mut unknown = Latency::default();
        unknown.failed(ms(1), at(100.0));
        assert_eq!(unknown.cost(0, false, at(100.0)), 30_000_000);
    }
}
