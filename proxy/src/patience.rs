//! Waiting for "100 Continue" before a body is sent (RFC 9110 §10.1.1).

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Sleep;

use crate::interims::Interims;

/// Endpoints that do not know the expectation never say so; the body is sent then.
const CONTINUE_MAX: Duration = Duration::from_secs(1);

/// What is left of the wait, if there is one.
#[derive(Debug)]
pub(crate) struct Patience(Option<Pin<Box<Sleep>>>);

impl Patience {
    /// Only while the client waits as well: nobody needs to wait for a body that is here.
    pub(crate) fn of(interims: &Interims, has_body: bool) -> Self {
        let waits = has_body && interims.awaits_continue();
        Self(waits.then(|| Box::pin(tokio::time::sleep(CONTINUE_MAX))))
    }

    /// Ready when the body may be sent.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(sleep) = &mut self.0 else {
            return Poll::Ready(());
        };
        let slept = sleep.as_mut().poll(cx);
        if slept.is_ready() {
            self.end();
        }
        slept
    }

    /// The endpoint wants the body.
    pub(crate) fn end(&mut self) {
        self.0 = None;
    }

    pub(crate) fn is_waiting(&self) -> bool {
        self.0.is_some()
    }
}
