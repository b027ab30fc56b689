//! Clients that do not read: a write that makes no progress has a deadline.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Sleep;

/// The clock of one connection's writes; costs nothing until one has to wait.
#[derive(Debug)]
pub(crate) struct Stall {
    patience: Option<Duration>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Stall {
    pub(crate) fn new(patience: Option<Duration>) -> Self {
        Self {
            patience,
            timer: None,
        }
    }

    /// Passes the outcome of a write on, unless it has waited for too long.
    pub(crate) fn judge<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.timer = None;
            return written;
        }
        let Some(patience) = self.patience else {
            return Poll::Pending;
        };
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
        match timer.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    /// TLS takes bytes before they are sent: only a flush shows then that nobody reads them.
    #[tokio::test(start_paused = true)]
    async fn whatever_waits_too_long_fails() {
        let mut stall = Stall::new(Some(Duration::from_secs(30)));
        let flushed = poll_fn(|cx| stall.judge::<()>(cx, Poll::Pending)).await;
        let kind = flushed.map_err(|error| error.kind());
        assert_eq!(kind, Err(io::ErrorKind::TimedOut));
    }
}
