//! The server's side of HTTP/2: requests of one client, many at a time, and the answers to them.

use std::future::poll_fn;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use meshgate_codec::http2::{BadHead, Code, Config, RequestHead, Role, StreamId};
use meshgate_codec::{Fields, ResponseHead};

use super::link::{Link, State};
use super::outbound::{Outbound, Unsent};
use super::slot::Slot;
use super::tunnel::Tunnel;
use crate::body::{BodyError, Frame, Incoming, ResponseBody};
use crate::date;
use crate::deadline::{Deadline, Wait};
use crate::head::Response;
use crate::io::Io;
use crate::listen::ListenerLimits;
use crate::wire::LINGER_MAX;

/// A client that lets us wait is asked for a sign of life, and given up if it gives none.
const SILENCE_MAX: Duration = Duration::from_secs(30);
const PONG_MAX: Duration = Duration::from_secs(20);
/// After we asked the client to open no more streams, those on their way are waited for so long (RFC 9113 §6.8).
const LEAVE_MAX: Duration = Duration::from_secs(1);

/// A client's connection, moved by the task that asks it for what comes next.
#[derive(Debug)]
pub(crate) struct Server {
    link: Link,
    limits: ListenerLimits,
    /// Of heads that have begun.
    head: Deadline,
    /// Of whatever else is waited for.
    deadline: Deadline,
    waits: Wait,
    phase: Phase,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Open,
    /// The client was asked to open no more streams.
    Asked,
    /// No further stream is served.
    Leaving,
}

/// What comes next on a connection.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "taken apart where it is returned to"
)]
pub(crate) enum Opened {
    Request {
        stream: Stream,
        /// A head that is too large is answered, too.
        head: Result<RequestHead, BadHead>,
        body: Incoming,
    },
    /// Nothing: it is over.
    Closed,
}

impl Server {
    pub(crate) fn new(io: Io, config: Config, limits: ListenerLimits) -> Self {
        let stall = Some(limits.write_stall_timeout);
        Self {
            link: Link::new(Role::Server, config, io, stall),
            limits,
            head: Deadline::default(),
            deadline: Deadline::default(),
            waits: Wait::Idle,
            phase: Phase::Open,
        }
    }

    /// The next request, while bytes move both ways.
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Opened> {
        loop {
            let mut state = self.link.lock();
            if let Some(request) = state.next_request() {
                drop(state);
                let body = self.body(request.stream);
                return Poll::Ready(Opened::Request {
                    stream: Stream {
                        link: self.link.clone(),
                        id: request.stream,
                        patience: self.limits.write_stall_timeout,
                        verdict: Code::CANCEL,
                        handed_on: false,
                    },
                    head: request.head,
                    body,
                });
            }
            let driven = state.poll_drive(cx);
            if state.has_next() {
                continue;
            }
            let idle = state.slots.is_empty() && !state.wire.has_unsent();
            if driven.is_ready() || idle && self.phase == Phase::Leaving {
                return Poll::Ready(Opened::Closed);
            }
            drop(state);
            ready!(self.poll_wait(cx));
        }
    }

    /// Malformed requests since the last time somebody asked.
    pub(crate) fn take_refused(&self) -> u32 {
        std::mem::take(&mut self.link.lock().refused)
    }

    /// Sends what waits, as far as it goes; says whether something else can come next now.
    pub(crate) fn flush(&self, cx: &mut Context<'_>) -> bool {
        let mut state = self.link.lock();
        if state.wire.has_unsent()
            && let Poll::Ready(Err(why)) = state.poll_flush(cx)
        {
            state.end(why);
        }
        state.ended.is_some() || state.has_next()
    }

    /// Asks the client to open no more streams, and serves those that are on their way.
    pub(crate) fn leave(&mut self) {
        if self.phase != Phase::Open {
            return;
        }
        self.phase = Phase::Asked;
        let mut state = self.link.lock();
        let state = &mut *state;
        let out = state.wire.front();
        state.protocol.ask_to_leave(out);
        state.protocol.ping(*b"leaving!", out);
        state.ponged = false;
    }

    fn body(&self, stream: StreamId) -> Incoming {
        let state = self.link.lock();
        let Some(slot) = state.slots.get(&stream) else {
            return Incoming::Empty;
        };
        if slot.is_drained() {
            return Incoming::Empty;
        }
        Incoming::Http2(Inbound {
            link: self.link.clone(),
            stream,
            deadline: Deadline::default(),
            patience: self.limits.body_idle_timeout,
        })
    }

    /// Ready when something was done because nothing came for so long.
    fn poll_wait(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let link = self.link.clone();
        let state = &mut *link.lock();
        if std::mem::take(&mut state.heard) {
            state.pinged = false;
            if self.waits == Wait::Silence {
                self.deadline.met();
            }
        }
        if self.phase == Phase::Asked && state.ponged {
            self.leave_now(state);
            return Poll::Ready(());
        }
        if self.poll_slow_head(state, cx).is_ready() {
            let why = "too slow";
            let out = state.wire.front();
            state.protocol.break_off(Code::ENHANCE_YOUR_CALM, why, out);
            let _ = state.poll_flush(cx);
            state.end(why.into());
            return Poll::Ready(());
        }
        let (wait, patience) = self.wait(state);
        if std::mem::replace(&mut self.waits, wait) != wait && wait == Wait::Idle {
            self.head = Deadline::default();
            state.rest();
        }
        if wait == Wait::Idle {
            state.wire.rest();
        }
        ready!(self.deadline.poll(cx, wait, patience));
        self.deadline.met();
        let out = state.wire.front();
        match wait {
            Wait::Silence => {
                state.protocol.ping(*b"still on", out);
                state.pinged = true;
            }
            Wait::Pong => state.end("no sign of life".into()),
            _ => self.leave_now(state),
        }
        Poll::Ready(())
    }

    /// Ready when the client took too long for the rest of a head, for its preface, or for any frame that it began
    /// while nothing else goes on.
    fn poll_slow_head(&mut self, state: &State, cx: &mut Context<'_>) -> Poll<()> {
        let began = state.slots.is_empty() && !state.wire.read.is_empty();
        let protocol = &state.protocol;
        if protocol.awaits_head() || !protocol.is_greeted() || began {
            return self.head.poll(cx, Wait::Head, self.limits.header_timeout);
        }
        self.head.met();
        Poll::Pending
    }

    /// What is waited for, and how long.
    fn wait(&self, state: &State) -> (Wait, Duration) {
        if self.phase == Phase::Asked {
            (Wait::Close, LEAVE_MAX)
        } else if state.slots.is_empty() {
            (Wait::Idle, self.limits.keep_alive)
        } else if state.pinged {
            (Wait::Pong, PONG_MAX)
        } else {
            (Wait::Silence, SILENCE_MAX)
        }
    }

    fn leave_now(&mut self, state: &mut State) {
        self.phase = Phase::Leaving;
        state.protocol.leave(state.wire.front());
    }

    /// Ends the connection so that the client gets everything that was sent.
    pub(crate) async fn close(&self) {
        let closing = poll_fn(|cx| {
            let state = &mut *self.link.lock();
            if ready!(state.poll_flush(cx)).is_err() {
                return Poll::Ready(());
            }
            state.wire.poll_leave(cx).map(drop)
        });
        let _ = tokio::time::timeout(LINGER_MAX, closing).await;
    }
}

/// A stream of a client's. Given up when dropped before the answer's end.
#[derive(Debug)]
pub(crate) struct Stream {
    link: Link,
    id: StreamId,
    /// An answer that the client makes no room for ends after so long.
    patience: Duration,
    /// What the client is told when this is dropped.
    verdict: Code,
    /// Somebody else looks after the stream.
    handed_on: bool,
}

impl Stream {
    /// Where answers before the answer go.
    pub(crate) fn interims(&self) -> Interims {
        Interims {
            link: self.link.clone(),
            id: self.id,
        }
    }

    /// Tells when the client gives the stream up.
    pub(crate) fn watch(&self) -> Watch {
        Watch {
            link: self.link.clone(),
            id: self.id,
        }
    }

    /// Sends an answer.
    pub(crate) async fn respond(mut self, mut response: Response) {
        date::tell(&mut response.fields);
        let mut body = response.body;
        let ends = body.is_ended();
        let (status, fields) = (response.status.as_u16(), &response.fields);
        if !self.send_head(status, fields, ends) {
            return;
        }
        self.verdict = match ends {
            true => Code::NO_ERROR,
            false => self.send_body(&mut body).await,
        };
    }

    fn send_head(&self, status: u16, fields: &Fields, ends: bool) -> bool {
        let state = &mut *self.link.lock();
        let out = state.wire.front();
        let sent = state.protocol.respond(self.id, status, fields, ends, out);
        sent.is_ok()
    }

    async fn send_body(&self, body: &mut ResponseBody) -> Code {
        let mut outbound = Outbound::new(self.link.clone(), self.id, Some(self.patience));
        match poll_fn(|cx| outbound.poll(cx, body)).await {
            // If something is left of the request, it is not needed (RFC 9113 §8.1).
            Ok(()) => Code::NO_ERROR,
            Err(Unsent::Gone | Unsent::Stalled) => Code::CANCEL,
            // The client must not take what it has for the whole.
            Err(Unsent::Body(why)) => {
                tracing::debug!(%why, "an answer was cut");
                Code::INTERNAL_ERROR
            }
        }
    }

    /// Agrees to use the stream for something else than messages. `None` when it is over.
    pub(crate) fn agree(mut self, status: u16, fields: &Fields) -> Option<Tunnel> {
        let agreed = self.send_head(status, fields, false);
        self.handed_on = agreed;
        agreed.then(|| Tunnel::new(self.link.clone(), self.id, None))
    }
}

/// The way of answers before the answer to one request.
#[derive(Debug)]
pub(crate) struct Interims {
    link: Link,
    id: StreamId,
}

impl Interims {
    pub(crate) fn awaits_continue(&self) -> bool {
        let state = self.link.lock();
        let slot = state.slots.get(&self.id);
        slot.is_some_and(|slot| slot.awaits_continue && slot.frames.is_empty())
    }

    pub(crate) fn tell(&self, head: &ResponseHead) {
        let state = &mut *self.link.lock();
        let Some(slot) = state.slots.get_mut(&self.id) else {
            return;
        };
        if head.status == 100 && !std::mem::take(&mut slot.awaits_continue) {
            return;
        }
        let out = state.wire.front();
        // Too late when the answer has begun.
        let _ = state
            .protocol
            .inform(self.id, head.status, &head.fields, out);
    }
}

/// Whoever wants to know when a stream is over.
#[derive(Debug)]
pub(crate) struct Watch {
    link: Link,
    id: StreamId,
}

impl Watch {
    /// Ready when the client gave the stream up, or is gone.
    pub(crate) fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.link.lock();
        match state.slots.get_mut(&self.id) {
            Some(slot) if slot.end.is_none() => {
                slot.owner.park(cx);
                Poll::Pending
            }
            _ => Poll::Ready(()),
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if !self.handed_on {
            self.link.close(self.id, self.verdict);
        }
    }
}

/// The body of a request. With the answer's end it ends.
#[derive(Debug)]
pub(crate) struct Inbound {
    link: Link,
    stream: StreamId,
    deadline: Deadline,
    patience: Duration,
}

impl Inbound {
    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame, BodyError>>> {
        match self.link.poll_frame(self.stream, cx) {
            Poll::Ready(frame) => {
                self.deadline.met();
                Poll::Ready(frame)
            }
            Poll::Pending => {
                ready!(self.deadline.poll(cx, Wait::Body, self.patience));
                Poll::Ready(Some(Err(BodyError::Slow)))
            }
        }
    }

    pub(crate) fn is_ended(&self) -> bool {
        self.ask(Slot::is_drained) == Some(true)
    }

    /// Bytes still to come, if that is known.
    pub(crate) fn length(&self) -> Option<u64> {
        self.ask(Slot::length).flatten()
    }

    fn ask<T>(&self, question: impl FnOnce(&Slot) -> T) -> Option<T> {
        self.link.lock().slots.get(&self.stream).map(question)
    }
}
