//! A task that waits for what another task does.

use std::task::{Context, Waker};

/// At most one waiting task. It is woken as well when what it waits for can never come.
#[derive(Debug, Default)]
pub(crate) struct Parked(Option<Waker>);

impl Parked {
    pub(crate) fn park(&mut self, cx: &Context<'_>) {
        match &mut self.0 {
            Some(waker) => waker.clone_from(cx.waker()),
            None => self.0 = Some(cx.waker().clone()),
        }
    }

    pub(crate) fn leave(&mut self) {
        self.0 = None;
    }

    pub(crate) fn wake(&mut self) {
        if let Some(waker) = self.0.take() {
            waker.wake();
        }
    }

    /// Wakes it, unless it is the task that runs.
    pub(crate) fn wake_other(&mut self, cx: &Context<'_>) {
        if let Some(waker) = self.0.take_if(|waker| !waker.will_wake(cx.waker())) {
            waker.wake();
        }
    }
}

impl Drop for Parked {
    fn drop(&mut self) {
        self.wake();
    }
}
