//! Waits between tries.

use std::time::Duration;

/// At the first start, what is missing (permissions, definitions, a namespace) appears within milliseconds.
const SOON: Duration = Duration::from_millis(20);
/// How many tries come soon: one second of them.
const SOON_TRIES: u32 = 50;
const LATER_MAX: Duration = Duration::from_secs(5);

/// How often something failed in a row.
#[derive(Debug, Default)]
pub(crate) struct Retry {
    tries: u32,
}

impl Retry {
    pub(crate) async fn pause(&mut self) {
        tokio::time::sleep(self.wait()).await;
        self.tries = self.tries.saturating_add(1);
    }

    /// Once, when it is no matter of starting up any more.
    pub(crate) fn is_worth_a_warning(&self) -> bool {
        self.tries == SOON_TRIES
    }

    fn wait(&self) -> Duration {
        let doublings = self.tries.saturating_sub(SOON_TRIES).min(16);
        (SOON * (1 << doublings)).min(LATER_MAX)
    }
}
