//! Whether a failed attempt is made again.

use std::time::Duration;

use thiserror::Error;

/// What a service's callers may do after a failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Besides the first.
    pub attempts: u32,
    /// After which failures.
    pub on: RetryOn,
    /// How long to wait.
    pub backoff: Backoff,
    /// Percent of requests that may be retries.
    pub budget_percent: u32,
    /// Retries a second that are always affordable.
    pub budget_min_per_second: u32,
    /// Larger bodies are not kept for another attempt.
    pub replay_body_max_bytes: usize,
}

impl RetryPolicy {
    /// More attempts only multiply load.
    pub const ATTEMPTS_MAX: u32 = 10;
    /// Each request in flight may keep a body of this size: more is a way to run out of memory.
    pub const REPLAY_BODY_BYTES_MAX: u64 = 16 << 20;
}

impl Default for RetryPolicy {
    /// Two more attempts, and only of what provably was not processed.
    fn default() -> Self {
        Self {
            attempts: 2,
            on: RetryOn::default(),
            backoff: Backoff::default(),
            budget_percent: 20,
            budget_min_per_second: 10,
            replay_body_max_bytes: 64 * 1024,
        }
    }
}

/// The failures after which another attempt is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryOn {
    /// No connection.
    pub connect_failure: bool,
    /// The server said that it did not process the stream.
    pub refused_stream: bool,
    /// The connection or stream ended before a response; the server may have processed the request.
    pub reset_before_response: bool,
    /// The attempt took too long.
    pub per_try_timeout: bool,
    /// Response statuses.
    pub statuses: Vec<u16>,
    /// gRPC's, of answers that are nothing but a status.
    pub grpc_statuses: Vec<u8>,
}

impl Default for RetryOn {
    fn default() -> Self {
        Self {
            connect_failure: true,
            refused_stream: true,
            reset_before_response: false,
            per_try_timeout: false,
            statuses: Vec::new(),
            grpc_statuses: Vec::new(),
        }
    }
}

/// A name that is no retry condition.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "{0:?} is no retry condition: expected ConnectFailure, RefusedStream, ResetBeforeResponse, GatewayError, Retriable4xx, PerTryTimeout, a status from 400 to 599 or the name of a gRPC code"
)]
pub struct UnknownCondition(pub String);

impl RetryOn {
    /// Parses the names of a BackendPolicy.
    pub fn parse<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self, UnknownCondition> {
        let mut on = Self {
            connect_failure: false,
            refused_stream: false,
            ..Self::default()
        };
        for name in names {
            match name {
                "ConnectFailure" => on.connect_failure = true,
                "RefusedStream" => on.refused_stream = true,
                "ResetBeforeResponse" => on.reset_before_response = true,
                "PerTryTimeout" => on.per_try_timeout = true,
                // A try that takes too long is a gateway's own 504.
                "GatewayError" => {
                    on.statuses.extend([502, 503, 504]);
                    on.per_try_timeout = true;
                }
                "Retriable4xx" => on.statuses.push(409),
                other => match (other.parse(), grpc_code(other)) {
                    (Ok(status @ 400..=599), _) => on.statuses.push(status),
                    (_, Some(code)) => on.grpc_statuses.push(code),
                    _ => return Err(UnknownCondition(name.to_owned())),
                },
            }
        }
        Ok(on)
    }
}

/// The number of a gRPC code, by its name in the gRPC specification; there is none for OK, which is no failure.
fn grpc_code(name: &str) -> Option<u8> {
    const NAMES: [&str; 16] = [
        "CANCELLED",
        "UNKNOWN",
        "INVALID_ARGUMENT",
        "DEADLINE_EXCEEDED",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "PERMISSION_DENIED",
        "RESOURCE_EXHAUSTED",
        "FAILED_PRECONDITION",
        "ABORTED",
        "OUT_OF_RANGE",
        "UNIMPLEMENTED",
        "INTERNAL",
        "UNAVAILABLE",
        "DATA_LOSS",
        "UNAUTHENTICATED",
    ];
    let index = NAMES.iter().position(|known| *known == name)?;
    u8::try_from(index + 1).ok()
}

/// What went wrong with an attempt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FailureKind {
    /// No connection, or no certificate that proves the endpoint's identity: nothing was sent.
    Connect,
    /// Refused before processing (REFUSED_STREAM, GOAWAY), or the connection was closed before the request was written.
    Refused,
    /// The connection ended before a response.
    Reset,
    /// The attempt took too long.
    PerTryTimeout,
    /// A response with this status.
    Status(u16),
    /// A gRPC response without a message, with this status.
    Grpc(u8),
}

/// Whether the server may have processed the request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Safety {
    /// No byte of it was processed.
    Unprocessed,
    /// Perhaps, but the method is idempotent (RFC 9110 §9.2.2).
    Idempotent,
    /// Perhaps.
    Unknown,
}

impl RetryPolicy {
    /// Whether `attempt` (1 is the first) may be followed by another after this failure; the budget has its own say.
    pub fn permits(&self, attempt: u32, failure: FailureKind, safety: Safety) -> bool {
        if attempt > self.attempts {
            return false;
        }
        match failure {
            FailureKind::Connect => self.on.connect_failure,
            FailureKind::Refused => self.on.refused_stream,
            // A connection that the server closed while it idled is the usual cause.
            FailureKind::Reset => {
                self.on.reset_before_response
                    || (safety != Safety::Unknown && self.on.refused_stream)
            }
            FailureKind::PerTryTimeout => self.on.per_try_timeout,
            FailureKind::Status(status) => self.on.statuses.contains(&status),
            FailureKind::Grpc(status) => self.on.grpc_statuses.contains(&status),
        }
    }
}

/// Waits between attempts: doubling, with full jitter in the upper half.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    base: Duration,
    max: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self::new(Duration::from_millis(25), Duration::from_millis(250))
    }
}

impl Backoff {
    /// `max` below `base` is taken as `base`.
    pub fn new(base: Duration, max: Duration) -> Self {
        Self {
            base,
            max: max.max(base),
        }
    }

    /// The wait after `attempt` (1 is the first) failed; `chance` is a random number.
    pub fn after(&self, attempt: u32, chance: u64) -> Duration {
        let doubled = self
            .base
            .saturating_mul(
                1_u32
                    .checked_shl(attempt.saturating_sub(1))
                    .unwrap_or(u32::MAX),
            )
            .min(self.max);
        let half = doubled / 2;
        half + half.mul_f64((chance >> 11) as f64 / (1_u64 << 53) as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(on: &[&str], attempt: u32, failure: FailureKind, safety: Safety, expected: bool) {
        let policy = RetryPolicy {
            on: RetryOn::parse(on.iter().copied()).unwrap(),
            ..RetryPolicy::default()
        };
        assert_eq!(
            policy.permits(attempt, failure, safety),
            expected,
            "{on:?} {attempt} {failure:?} {safety:?}"
        );
    }

    #[test]
    fn only_what_was_asked_for() {
        use FailureKind::{Connect, Grpc, PerTryTimeout, Refused, Reset, Status};
        use Safety::{Idempotent, Unknown, Unprocessed};
        check(&["ConnectFailure"], 1, Connect, Unprocessed, true);
        check(&["ConnectFailure"], 2, Connect, Unprocessed, true);
        check(&["ConnectFailure"], 3, Connect, Unprocessed, false);
        check(&["ConnectFailure"], 1, Refused, Unprocessed, false);
        check(&["RefusedStream"], 1, Refused, Unprocessed, true);
        check(&["RefusedStream"], 1, Reset, Unknown, false);
        check(&["RefusedStream"], 1, Reset, Idempotent, true);
        check(&["ResetBeforeResponse"], 1, Reset, Unknown, true);
        check(&["503"], 1, Status(503), Unknown, true);
        check(&["GatewayError"], 1, Status(504), Unknown, true);
        check(&["503"], 1, Status(500), Unknown, false);
        check(&["PerTryTimeout"], 1, PerTryTimeout, Unknown, true);
        check(&["GatewayError"], 1, PerTryTimeout, Unknown, true);
        check(&["UNAVAILABLE"], 1, Grpc(14), Unknown, true);
        check(
            &["CANCELLED", "UNAUTHENTICATED"],
            1,
            Grpc(16),
            Unknown,
            true,
        );
        check(&["CANCELLED", "UNAUTHENTICATED"], 1, Grpc(1), Unknown, true);
        check(&["UNAVAILABLE"], 1, Grpc(13), Unknown, false);
        check(&["UNAVAILABLE"], 1, Status(503), Unknown, false);
        for unknown in ["Sometimes", "OK", "unavailable", "99", "600"] {
            assert!(RetryOn::parse([unknown]).is_err(), "{unknown}");
        }
        assert!(RetryOn::parse(["200"]).is_err());
    }

    #[test]
    fn backoff_doubles_up_to_its_maximum() {
        let backoff = Backoff::default();
        let ms = |attempt, chance| backoff.after(attempt, chance).as_millis();
        assert_eq!((ms(1, 0), ms(1, u64::MAX)), (12, 25));
        assert_eq!(ms(2, 0), 25);
        assert_eq!((ms(40, 0), ms(40, u64::MAX)), (125, 250));
    }
}
