//! Deadlines for waits that rarely take long: a timer is touched only when a wait outlasts it.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// What a connection waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Wait {
    /// The next request.
    Idle,
    /// The rest of a head.
    Head,
    /// The next bytes of a body.
    Body,
    /// The client's close after a last answer.
    Close,
}

/// The deadline of one wait at a time.
#[derive(Debug, Default)]
pub(super) struct Deadline {
    wait: Option<(Wait, Instant)>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Deadline {
    /// Ready when this wait, which begins now unless it was going on already, has lasted for `patience`.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        wait: Wait,
        patience: Duration,
    ) -> Poll<()> {
        let until = match self.wait {
            Some((same, until)) if same == wait => until,
            _ => {
                let until = Instant::now() + patience;
                self.wait = Some((wait, until));
                until
            }
        };
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
        if timer.deadline() > until {
            timer.as_mut().reset(until);
        }
        loop {
            ready!(timer.as_mut().poll(cx));
            // It was set for an earlier wait.
            if timer.deadline() >= until {
                return Poll::Ready(());
            }
            timer.as_mut().reset(until);
        }
    }

    /// What was waited for has come.
    pub(super) fn met(&mut self) {
        self.wait = None;
    }
}
