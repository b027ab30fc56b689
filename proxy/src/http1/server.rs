//! The server's side of HTTP/1: requests of one client and the answers to them, one after the other.

use std::future::poll_fn;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, ready};

use bytes::Buf;
use meshgate_codec::http1::{
    BadFraming, BadHead, Framing, HeadLimits, Parsed, Persist, RequestParser, StatusLine,
    Unsayable, encode_response, request_framing,
};
use meshgate_codec::{Known, RequestHead, ResponseHead, Version};

use super::reader::Reader;
use super::writer::Writer;
use crate::body::{BodyError, Frame, Incoming, ResponseBody};
use crate::deadline::{Deadline, Wait};
use crate::io::Io;
use crate::listen::{FIELD_BYTES_MAX, HEAD_BYTES_MAX, HEADERS_MAX, ListenerLimits, URI_BYTES_MAX};
use crate::parked::Parked;
use crate::spare;
use crate::wire::{Expect, LINGER_MAX, Wire};

/// A client's connection. It closes with its owner, whoever still wants to read a body from it.
#[derive(Debug)]
pub(crate) struct Server(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    wire: Wire,
    parser: RequestParser,
    /// The body of the request that is being answered.
    reader: Reader,
    /// Requests begun and ended. A body reads as long as this says that its request is the one.
    turn: u64,
    /// Who waits for more of the body.
    body: Parked,
    /// Who waits for the body's end, to watch the client from then on.
    watcher: Parked,
    deadline: Deadline,
    limits: ListenerLimits,
    /// The client waits for a word before it sends its body.
    awaits_continue: bool,
    /// Its answer is being written, by the connection's owner alone.
    answering: bool,
}

/// The body of a request. Other tasks than the connection's may read it; with the answer's end it ends.
#[derive(Debug)]
pub(crate) struct Inbound {
    state: Weak<Mutex<State>>,
    turn: u64,
}

/// The way of answers before the answer to one request.
#[derive(Debug)]
pub(crate) struct Interims {
    state: Weak<Mutex<State>>,
    turn: u64,
}

/// What comes next on a connection.
#[derive(Debug)]
pub(crate) enum Next {
    /// A request, whose head was read.
    Request(Incoming),
    /// Nothing that could be a request.
    Refused(Refusal),
    /// A head that did not end in time.
    Slow,
    /// Nothing: the client closed, or did not ask for long.
    Closed,
}

/// Why bytes are no request.
#[derive(Debug)]
pub(crate) enum Refusal {
    Head(BadHead),
    Framing(BadFraming),
}

/// Of a request's head.
const LIMITS: HeadLimits = HeadLimits {
    head_bytes_max: HEAD_BYTES_MAX,
    fields_max: HEADERS_MAX,
    field_bytes_max: FIELD_BYTES_MAX,
    target_bytes_max: URI_BYTES_MAX,
};

/// What is left of a request's body is read and thrown away if it is no more than this.
const LEFT_BYTES_MAX: usize = 256 * 1024;

impl Server {
    pub(crate) fn new(io: Io, limits: ListenerLimits) -> Self {
        Self(Arc::new(Mutex::new(State {
            wire: Wire::new(io, Some(limits.write_stall_timeout)),
            parser: RequestParser::default(),
            reader: Reader::Ended,
            turn: 0,
            body: Parked::default(),
            watcher: Parked::default(),
            deadline: Deadline::default(),
            limits,
            awaits_continue: false,
            answering: false,
        })))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.0)
    }

    /// Reads the next request's head.
    pub(crate) fn poll_next(&self, cx: &mut Context<'_>, head: &mut RequestHead) -> Poll<Next> {
        let mut state = self.lock();
        if let Err(next) = ready!(state.poll_next(cx, head)) {
            return Poll::Ready(next);
        }
        Poll::Ready(Next::Request(match state.reader.is_ended() {
            true => Incoming::Empty,
            false => Incoming::Http1(Inbound {
                state: Arc::downgrade(&self.0),
                turn: state.turn,
            }),
        }))
    }

    /// Where answers before the answer go.
    pub(crate) fn interims(&self) -> Interims {
        Interims {
            state: Arc::downgrade(&self.0),
            turn: self.lock().turn,
        }
    }

    /// Whether the client was not told yet to send its body.
    pub(crate) fn awaits_continue(&self) -> bool {
        self.lock().awaits_continue
    }

    /// Whether the client sent more than was read as requests.
    pub(crate) fn has_more(&self) -> bool {
        !self.lock().wire.read.is_empty()
    }

    /// Ready when the client closed: nobody waits for the answer. A client that said more already is not watched.
    pub(crate) fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.lock().poll_gone(cx)
    }

    /// Sends an answer: the head that `encode` writes, then the body. Behind the last answer of a connection nothing
    /// follows.
    pub(crate) async fn answer(
        &self,
        encode: impl FnOnce(&mut Vec<u8>) -> Result<(), Unsayable>,
        mut body: ResponseBody,
        (framing, is_last): (Framing, bool),
    ) -> Result<(), Unanswered> {
        {
            let mut state = self.lock();
            state.awaits_continue = false;
            state.answering = true;
            encode(state.wire.front()).map_err(Unanswered::Head)?;
        }
        let mut writer = Writer::from(framing);
        let answered = poll_fn(|cx| self.poll_answer(cx, &mut body, &mut writer, is_last)).await;
        self.lock().end_turn();
        answered
    }

    fn poll_answer(
        &self,
        cx: &mut Context<'_>,
        body: &mut ResponseBody,
        writer: &mut Writer,
        is_last: bool,
    ) -> Poll<Result<(), Unanswered>> {
        loop {
            if writer.is_ended() || self.lock().wire.is_full() {
                let flushed = {
                    let wire = &mut self.lock().wire;
                    if writer.is_ended() && is_last {
                        wire.end_with_this();
                    }
                    wire.poll_flush(cx)
                };
                if flushed.is_pending() {
                    // The rest of the request does not wait for a client that is slow to take the answer.
                    body.move_request(cx);
                }
                ready!(flushed).map_err(Unanswered::Connection)?;
            }
            if writer.is_ended() {
                return Poll::Ready(Ok(()));
            }
            // Not under the lock: the answer's source may read the request's body from this connection.
            match body.poll_frame(cx) {
                Poll::Ready(frame) => {
                    let frame = frame.transpose().map_err(Unanswered::Body)?;
                    let put = writer.put(&mut self.lock().wire, frame);
                    put.map_err(Unanswered::Body)?;
                }
                Poll::Pending => {
                    let mut state = self.lock();
                    ready!(state.wire.poll_flush(cx)).map_err(Unanswered::Connection)?;
                    ready!(state.poll_gone(cx));
                    return Poll::Ready(Err(Unanswered::Gone));
                }
            }
        }
    }

    /// Whether the request was read to its end, which it is soon if little is left of it.
    pub(crate) async fn request_is_over(&self) -> bool {
        let mut thrown = 0;
        poll_fn(|cx| {
            let mut state = self.lock();
            loop {
                match ready!(state.poll_body(cx)) {
                    None => return Poll::Ready(true),
                    Some(Ok(Frame::Data(data))) => thrown += data.len(),
                    Some(Ok(Frame::Trailers(_))) => {}
                    Some(Err(_)) => return Poll::Ready(false),
                }
                if thrown > LEFT_BYTES_MAX {
                    return Poll::Ready(false);
                }
            }
        })
        .await
    }

    /// Ends the connection so that the client gets everything that was sent.
    pub(crate) async fn close(&self) {
        let closing = poll_fn(|cx| self.lock().wire.poll_leave(cx));
        // A client that does not close is left.
        let _ = tokio::time::timeout(LINGER_MAX, closing).await;
    }

    /// Ends the connection in the middle of an answer. Where only the end of the connection would end the answer, it is
    /// reset, so that the client does not take what it has for the whole.
    pub(crate) async fn cut(&self, by_reset: bool) {
        let _ = poll_fn(|cx| self.lock().wire.poll_flush(cx)).await;
        if by_reset {
            self.lock().wire.reset_on_close();
        }
    }

    /// The bytes themselves, for another protocol. `None` while somebody reads the request's body.
    pub(crate) fn into_io(self) -> Option<Io> {
        let state = Arc::into_inner(self.0)?;
        let state = state.into_inner().unwrap_or_else(PoisonError::into_inner);
        Some(state.wire.into_io())
    }
}

/// Why an answer did not get through.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unanswered {
    #[error("the head cannot be written: {0}")]
    Head(Unsayable),
    #[error("the client's connection failed: {0}")]
    Connection(io::Error),
    #[error("the client went away")]
    Gone,
    #[error("{0}")]
    Body(BodyError),
}

impl State {
    fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        head: &mut RequestHead,
    ) -> Poll<Result<(), Next>> {
        loop {
            if !self.wire.read.is_empty() {
                if head.fields.room() == 0 {
                    head.fields = spare::fields();
                }
                match self.parser.parse(&self.wire.read, &LIMITS, head) {
                    Ok(Parsed::Head { consumed }) => {
                        self.wire.read.advance(consumed);
                        self.deadline.met();
                        return Poll::Ready(self.begin(head));
                    }
                    Ok(Parsed::Partial) => {}
                    Err(bad) => return Poll::Ready(Err(Next::Refused(Refusal::Head(bad)))),
                }
            }
            let (wait, patience) = match self.wire.read.is_empty() {
                true => (Wait::Idle, self.limits.keep_alive),
                false => (Wait::Head, self.limits.header_timeout),
            };
            match self.wire.poll_fill(cx, Expect::Head) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(_) => return Poll::Ready(Err(Next::Closed)),
                Poll::Pending => {
                    // What the handshake left to say.
                    if self.turn == 0 && ready_and_failed(self.wire.poll_flush(cx)) {
                        return Poll::Ready(Err(Next::Closed));
                    }
                    self.wire.rest();
                    ready!(self.deadline.poll(cx, wait, patience));
                    return Poll::Ready(Err(match wait {
                        Wait::Head => Next::Slow,
                        _ => Next::Closed,
                    }));
                }
            }
        }
    }

    /// Makes ready for the body of the request whose head was read.
    fn begin(&mut self, head: &RequestHead) -> Result<(), Next> {
        let framing = request_framing(head).map_err(|bad| Next::Refused(Refusal::Framing(bad)))?;
        self.reader = framing.into();
        self.turn += 1;
        self.answering = false;
        self.awaits_continue = !self.reader.is_ended() && expects_continue(head);
        Ok(())
    }

    /// The request is answered: what is left of its body is nobody's.
    fn end_turn(&mut self) {
        self.turn += 1;
        self.body.wake();
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        if std::mem::take(&mut self.awaits_continue) && self.wire.read.is_empty() {
            self.wire
                .front()
                .extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        if !self.answering
            && self.wire.has_unsent()
            && let Poll::Ready(Err(error)) = self.wire.poll_flush(cx)
        {
            return Poll::Ready(Some(Err(BodyError::Cut(error.to_string().into()))));
        }
        match self.reader.poll_frame(&mut self.wire, cx) {
            Poll::Ready(frame) => {
                self.deadline.met();
                if self.reader.is_ended() {
                    self.watcher.wake_other(cx);
                }
                Poll::Ready(frame)
            }
            Poll::Pending => {
                ready!(
                    self.deadline
                        .poll(cx, Wait::Body, self.limits.body_idle_timeout)
                );
                Poll::Ready(Some(Err(BodyError::Slow)))
            }
        }
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // Answers before the answer.
        if !self.answering && self.wire.has_unsent() && ready_and_failed(self.wire.poll_flush(cx)) {
            return Poll::Ready(());
        }
        if !self.reader.is_ended() {
            // Who reads the body sees the client's end as well.
            self.watcher.park(cx);
            return Poll::Pending;
        }
        if !self.wire.read.is_empty() {
            // It has said more already, and what else it says can wait for its turn.
            return Poll::Pending;
        }
        match ready!(self.wire.poll_fill(cx, Expect::Head)) {
            Ok(1..) => Poll::Pending,
            Ok(0) | Err(_) => Poll::Ready(()),
        }
    }
}

fn ready_and_failed(flushed: Poll<io::Result<()>>) -> bool {
    matches!(flushed, Poll::Ready(Err(_)))
}

/// Whether the client waits for a word before it sends its body (RFC 9110 §10.1.1).
fn expects_continue(head: &RequestHead) -> bool {
    head.version == Version::Http11 && head.fields.has_token(Known::Expect, "100-continue")
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Interims {
    pub(crate) fn awaits_continue(&self) -> bool {
        let state = self.state.upgrade();
        state.is_some_and(|state| {
            let state = lock(&state);
            state.turn == self.turn && state.awaits_continue && state.wire.read.is_empty()
        })
    }

    /// Says it, unless the answer itself is being written. The connection's owner sends it.
    pub(crate) fn tell(&self, head: &ResponseHead) {
        let Some(state) = self.state.upgrade() else {
            return;
        };
        let mut state = lock(&state);
        if state.turn != self.turn || state.answering {
            return;
        }
        if head.status == 100 && !std::mem::take(&mut state.awaits_continue) {
            return;
        }
        let line = StatusLine {
            status: head.status,
            version: Version::Http11,
        };
        let out = state.wire.front();
        // What cannot be said is not owed to anybody.
        let _ = encode_response(line, &head.fields, Framing::None, Persist::Keep, out);
    }
}

impl Inbound {
    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame, BodyError>>> {
        let polled = self.while_its_turn(|state| {
            let polled = state.poll_body(cx);
            match polled.is_pending() {
                true => state.body.park(cx),
                false => state.body.leave(),
            }
            polled
        });
        polled.unwrap_or_else(|| {
            let why = "the request was answered before".into();
            Poll::Ready(Some(Err(BodyError::Cut(why))))
        })
    }

    pub(crate) fn is_ended(&self) -> bool {
        self.while_its_turn(|state| state.reader.is_ended()) == Some(true)
    }

    pub(crate) fn length(&self) -> Option<u64> {
        self.while_its_turn(|state| state.reader.length()).flatten()
    }

    /// `None` when another request has its turn, or none will.
    fn while_its_turn<T>(&self, ask: impl FnOnce(&mut State) -> T) -> Option<T> {
        let state = self.state.upgrade()?;
        let mut state = lock(&state);
        (state.turn == self.turn).then(|| ask(&mut state))
    }
}
