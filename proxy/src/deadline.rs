//! Deadlines for waits that rarely take long: a timer is touched only when a wait outlasts it.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use crate::clock;

/// What a connection waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Wait {
    /// The next request.
    Idle,
    /// The rest of a head.
    Head,
    /// The next bytes of a body.
    Body,
    /// The peer's close after the last answer.
    Close,
    /// A sign of life while something is going on.
    Silence,
    /// The answer to a question for one.
    Pong,
    /// Room to send what there is.
    Room,
}

/// The deadline of one wait at a time.
#[derive(Debug, Default)]
pub(crate) struct Deadline {
    wait: Option<(Wait, Instant)>,
    timer: Option<Timer>,
}

/// Set for this wait or for an earlier one.
#[derive(Debug)]
struct Timer {
    sleep: Pin<Box<Sleep>>,
    /// Whom it wakes.
    waker: Option<Waker>,
}

impl Deadline {
    /// Ready when this wait, which begins now unless it was going on already, has lasted for `patience`.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        wait: Wait,
        patience: Duration,
    ) -> Poll<()> {
        let until = match self.wait {
            Some((same, until)) if same == wait => until,
            _ => {
                let until = after(clock::moment().instant, patience);
                self.wait = Some((wait, until));
                until
            }
        };
        self.poll_timer(cx, until)
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>, until: Instant) -> Poll<()> {
        let timer = self.timer.get_or_insert_with(|| Timer {
            sleep: Box::pin(tokio::time::sleep_until(until)),
            waker: None,
        });
        timer.poll(cx, until)
    }

    /// What a future gives, unless it takes longer than `patience` from `since` on.
    pub(crate) async fn within<F: Future>(
        &mut self,
        since: Instant,
        patience: Duration,
        mut future: Pin<&mut F>,
    ) -> Option<F::Output> {
        let until = after(since, patience);
        let output = poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending => self.poll_timer(cx, until).map(|()| None),
        });
        output.await
    }

    /// What was waited for has come.
    pub(crate) fn met(&mut self) {
        self.wait = None;
    }
}

/// A patience beyond all clocks is one of thirty years.
fn after(since: Instant, patience: Duration) -> Instant {
    const LONG: Duration = Duration::from_secs(30 * 365 * 24 * 3600);
    since.checked_add(patience).unwrap_or(since + LONG)
}

impl Timer {
    /// Ready at that moment, and not before.
    fn poll(&mut self, cx: &mut Context<'_>, until: Instant) -> Poll<()> {
        if self.sleep.deadline() > until {
            self.set(until);
        }
        let wakes_us = |waker: &Waker| waker.will_wake(cx.waker());
        if self.waker.as_ref().is_some_and(wakes_us) && !self.sleep.is_elapsed() {
            return Poll::Pending;
        }
        loop {
            if self.sleep.as_mut().poll(cx).is_pending() {
                self.waker = Some(cx.waker().clone());
                return Poll::Pending;
            }
            // It was set for an earlier wait.
            if self.sleep.deadline() >= until {
                return Poll::Ready(());
            }
            self.set(until);
        }
    }

    fn set(&mut self, until: Instant) {
        self.sleep.as_mut().reset(until);
        self.waker = None;
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::pin::pin;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Waits for nothing, so long; how long it took.
    async fn wait(deadline: &mut Deadline, patience: Duration) -> Duration {
        let begun = Instant::now();
        let output = deadline
            .within(begun, patience, pin!(pending::<()>()))
            .await;
        assert_eq!(output, None);
        begun.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn one_timer_serves_waits_of_any_length() {
        let mut deadline = Deadline::default();
        for seconds in [5, 60, 60, 1, 300, 2] {
            let patience = SECOND * seconds;
            let took = wait(&mut deadline, patience).await;
            assert!((patience..patience + SECOND).contains(&took), "{took:?}");
        }
        // What is ready is not kept waiting, however little patience there is.
        let output = deadline
            .within(Instant::now(), Duration::ZERO, pin!(ready(7)))
            .await;
        assert_eq!(output, Some(7));
        let sleep = async {
            tokio::time::sleep(SECOND).await;
            7
        };
        let output = deadline
            .within(Instant::now(), Duration::MAX, pin!(sleep))
            .await;
        assert_eq!(output, Some(7));
        assert_eq!(wait(&mut deadline, SECOND).await.as_secs(), 1);
    }
}
