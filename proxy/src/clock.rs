//! The one place where the engine reads a clock for its decisions.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::sync::OnceLock;

use meshgate_routing::Time;
use rand::rngs::SmallRng;
use rand::{RngCore as _, SeedableRng as _};
use tokio::time::Instant;

/// A moment, for timers and on the engine's own scale.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    pub(crate) instant: Instant,
    pub(crate) time: Time,
}

/// How time passes for what runs on this thread.
#[derive(Clone, Copy)]
enum Clock {
    /// As it does.
    Runs,
    /// It stands, and nobody has asked what it shows.
    Stands,
    Shows(Moment),
}

thread_local! {
    static CLOCK: Cell<Clock> = const { Cell::new(Clock::Runs) };
    static RANDOM: RefCell<SmallRng> = RefCell::new(SmallRng::from_os_rng());
}

/// The moment, on the engine's own scale (monotonic, from the first call on); within one poll of a connection, the moment
/// at which it was first asked for.
pub fn now() -> Time {
    moment().time
}

/// The same, for timers as well.
pub(crate) fn moment() -> Moment {
    match CLOCK.get() {
        Clock::Shows(moment) => moment,
        Clock::Runs => read(),
        Clock::Stands => {
            let moment = read();
            CLOCK.set(Clock::Shows(moment));
            moment
        }
    }
}

fn read() -> Moment {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    let instant = Instant::now();
    let elapsed = instant.saturating_duration_since(*ORIGIN.get_or_init(|| instant));
    Moment {
        instant,
        time: Time::since_origin(elapsed),
    }
}

/// A task for which no time passes while it does not wait. It would ask for the time a dozen times a request, which costs
/// more than the microseconds in between are worth.
pub(crate) fn by_steps<F: Future>(future: F) -> impl Future<Output = F::Output> {
    let mut future = Box::pin(future);
    poll_fn(move |cx| {
        let _step = Step::begin();
        future.as_mut().poll(cx)
    })
}

/// Time passes again when dropped.
struct Step;

impl Step {
    fn begin() -> Self {
        CLOCK.set(Clock::Stands);
        Self
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        CLOCK.set(Clock::Runs);
    }
}

/// A random number; quality enough for balancing and jitter, not for secrets.
pub(crate) fn chance() -> u64 {
    RANDOM.with_borrow_mut(|random| random.next_u64())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn time_stands_within_a_step_and_runs_outside() {
        let begun = moment();
        let within = by_steps(async {
            let before = moment();
            tokio::time::advance(SECOND).await;
            let waited = moment();
            (before, waited)
        });
        let (before, waited) = within.await;
        assert_eq!(before.instant, begun.instant);
        assert_eq!(
            waited.time.since(before.time),
            SECOND,
            "a wait is the end of a step"
        );
        let still = by_steps(async {
            let before = now();
            std::thread::sleep(Duration::from_millis(1));
            now().since(before)
        });
        assert_eq!(still.await, Duration::ZERO);
        tokio::time::advance(SECOND).await;
        assert_eq!(now().since(waited.time), SECOND);
    }
}
