//! A body on its way into a stream.

use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use meshgate_codec::http2::StreamId;

use super::link::Link;
use crate::body::{BodyError, Frame, Source};
use crate::deadline::{Deadline, Wait};

/// What of a body is still to be sent.
#[derive(Debug)]
pub(super) struct Outbound {
    link: Link,
    stream: StreamId,
    /// Taken from the source, and not sent.
    rest: Bytes,
    /// Nothing comes behind `rest`.
    last: bool,
    /// Data that finds no room for so long ends the stream.
    patience: Option<Duration>,
    deadline: Deadline,
}

/// Why a body was not sent to its end.
#[derive(Debug)]
pub(super) enum Unsent {
    /// The stream is over.
    Gone,
    /// The peer makes no room.
    Stalled,
    /// The body itself ended early.
    Body(BodyError),
}

impl Outbound {
    pub(super) fn new(link: Link, stream: StreamId, patience: Option<Duration>) -> Self {
        Self {
            link,
            stream,
            rest: Bytes::new(),
            last: false,
            patience,
            deadline: Deadline::default(),
        }
    }

    /// Sends what there is; ready when all is sent.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut impl Source,
    ) -> Poll<Result<(), Unsent>> {
        loop {
            if self.rest.is_empty() {
                match ready!(source.poll_frame(cx)).transpose() {
                    Ok(Some(Frame::Data(data))) => {
                        self.last = source.is_ended();
                        self.rest = data;
                        if self.rest.is_empty() && !self.last {
                            continue;
                        }
                    }
                    Ok(Some(Frame::Trailers(trailers))) => {
                        let mut state = self.link.lock();
                        let state = &mut *state;
                        let out = state.wire.front();
                        let sent = state.protocol.trailers(self.stream, &trailers, out);
                        state.driver.wake();
                        return Poll::Ready(sent.map_err(|_| Unsent::Gone));
                    }
                    Ok(None) => self.last = true,
                    Err(error) => return Poll::Ready(Err(Unsent::Body(error))),
                }
            }
            if ready!(self.poll_send(cx, source))? {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Sends a piece; says whether it was the last.
    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut impl Source,
    ) -> Poll<Result<bool, Unsent>> {
        let mut state = self.link.lock();
        let bytes = match self.rest.len() {
            0 => 0,
            waiting => match state.poll_room(self.stream, cx) {
                Poll::Ready(Some(room)) => room.min(waiting),
                Poll::Ready(None) => return Poll::Ready(Err(Unsent::Gone)),
                Poll::Pending => {
                    drop(state);
                    source.wait(cx);
                    let Some(patience) = self.patience else {
                        return Poll::Pending;
                    };
                    ready!(self.deadline.poll(cx, Wait::Room, patience));
                    return Poll::Ready(Err(Unsent::Stalled));
                }
            },
        };
        self.deadline.met();
        let piece = self.rest.split_to(bytes);
        let ends = self.last && self.rest.is_empty();
        let state = &mut *state;
        let head = state
            .protocol
            .data(self.stream, bytes, ends, state.wire.front());
        if head.is_err() {
            return Poll::Ready(Err(Unsent::Gone));
        }
        state.wire.put(piece, b"");
        state.driver.wake();
        Poll::Ready(Ok(ends))
    }
}
