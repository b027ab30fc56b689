//! Which endpoint takes a request, and what happens when it fails.

pub mod breaker;
pub mod budget;
pub mod latency;
pub mod pick;
pub mod retry;
pub mod ring;
#[cfg(test)]
mod simulation;
pub mod success_rate;

pub use breaker::{Breaker, BreakerPolicy, EjectionBook};
pub use budget::RetryBudget;
pub use latency::Latency;
pub use pick::{Algorithm, Candidate, Pick, pick};
pub use retry::{Backoff, FailureKind, RetryOn, RetryPolicy, Safety};
pub use ring::Ring;
pub use success_rate::{SuccessRate, SuccessRatePolicy};
