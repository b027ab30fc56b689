//! An HTTP/2 connection: its bytes, its protocol, its streams. One task moves the bytes; the tasks of streams put in what
//! is to be sent and take out what came.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use meshgate_codec::http2::{
    BadHead, Code, Config, Connection, Event, Received, RequestHead, Role, StreamId, Streams,
};
use meshgate_codec::{Fields, Known, ResponseHead};

use meshgate_routing::Time;

use super::slot::{End, Slot};
use crate::body::{BodyError, Frame};
use crate::clock;
use crate::io::Io;
use crate::parked::Parked;
use crate::wire::{Expect, Wire};

/// A connection, shared by those who use it.
#[derive(Debug, Clone)]
pub(super) struct Link(Arc<Mutex<State>>);

#[derive(Debug)]
pub(super) struct State {
    pub(super) wire: Wire,
    pub(super) protocol: Connection,
    pub(super) slots: Streams<Slot>,
    /// Streams that wait until what is there was sent, those that wait longest first.
    waiting: VecDeque<StreamId>,
    /// Requests that nobody has looked at.
    requests: VecDeque<Request>,
    /// Requests that were given up before anybody looked at them, if that is held against the peer.
    unseen_resets: u32,
    speaks_for_many: bool,
    /// Malformed requests since somebody counted them.
    pub(super) refused: u32,
    /// The task that moves the bytes, if it is another than those of the streams.
    pub(super) driver: Parked,
    /// The last ping was answered.
    pub(super) ponged: bool,
    /// The peer was asked for a sign of life, and has not given one.
    pub(super) pinged: bool,
    /// A request of ours was given up before its answer began, and nothing came since.
    pub(super) unanswered: bool,
    /// Frames wait to be taken until something is sent.
    jammed: bool,
    /// Something came since somebody asked.
    pub(super) heard: bool,
    /// A request was sent since that was asked.
    pub(super) opened: bool,
    /// Why nothing moves any more.
    pub(super) ended: Option<Cow<'static, str>>,
}

/// A request that came.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) stream: StreamId,
    pub(super) head: Result<RequestHead, BadHead>,
}

/// Interim answers that are passed over; more are a flood.
const INTERIM_MAX: u32 = 16;
/// Requests that may be given up before anybody looks at them, at once ("rapid reset").
const UNSEEN_RESETS_MAX: u32 = 20;

impl Link {
    /// `stall`: so long a write may make no progress.
    pub(super) fn new(role: Role, config: Config, io: Io, stall: Option<Duration>) -> Self {
        let mut wire = Wire::new(io, stall);
        let protocol = Connection::new(role, config, wire.front());
        Self(Arc::new(Mutex::new(State {
            wire,
            protocol,
            slots: Streams::default(),
            waiting: VecDeque::new(),
            requests: VecDeque::new(),
            unseen_resets: 0,
            speaks_for_many: config.speaks_for_many,
            refused: 0,
            driver: Parked::default(),
            ponged: false,
            pinged: false,
            unanswered: false,
            jammed: false,
            heard: false,
            opened: false,
            ended: None,
        })))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next piece of a stream's body; `None` after the last.
    pub(super) fn poll_frame(
        &self,
        stream: StreamId,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame, BodyError>>> {
        self.lock().poll_frame(stream, cx)
    }

    /// Gives a stream up; what came on it and was not taken is thrown away.
    pub(super) fn close(&self, stream: StreamId, code: Code) {
        let mut state = self.lock();
        let Some(slot) = state.slots.remove(&stream) else {
            return;
        };
        // After the connection's last word nothing is said about its streams.
        if state.ended.is_none() {
            let State { wire, protocol, .. } = &mut *state;
            protocol.release(stream, slot.bytes as u32, wire.front());
            let unanswered = protocol.is_ours(stream) && !slot.answered && slot.end.is_none();
            protocol.reset(stream, code, wire.front());
            state.unanswered |= unanswered;
            state.driver.wake();
        }
        drop(state);
        // Outside the lock: bodies may be shared with others.
        drop(slot);
    }
}

impl State {
    /// Moves bytes both ways as far as they go. Ready when the connection has ended.
    pub(super) fn poll_drive(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.ended.is_some() {
            return Poll::Ready(());
        }
        let why = ready!(self.poll_move(cx));
        self.end(why);
        Poll::Ready(())
    }

    fn poll_move(&mut self, cx: &mut Context<'_>) -> Poll<Cow<'static, str>> {
        loop {
            if let Err(why) = self.take_all() {
                // The peer is told before the end, if it still listens.
                let _ = self.wire.poll_flush(cx);
                return Poll::Ready(why.into());
            }
            if self.wire.is_full() {
                match self.poll_flush(cx) {
                    Poll::Ready(Ok(())) if self.jammed => continue,
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(why)) => return Poll::Ready(why),
                    // Who does not take what it asked for is not listened to. Not before: the peer may be waiting until
                    // we read what it has to send.
                    Poll::Pending if self.wire.is_jammed() => return Poll::Pending,
                    Poll::Pending => {}
                }
            }
            let expect = match self.slots.values().any(|slot| slot.bytes > 0) {
                true => Expect::Body,
                false => Expect::Head,
            };
            match self.wire.poll_fill(cx, expect) {
                Poll::Ready(Ok(0)) => return Poll::Ready("closed".into()),
                Poll::Ready(Ok(_)) => self.heard = true,
                Poll::Ready(Err(error)) => return Poll::Ready(error.to_string().into()),
                Poll::Pending => break,
            }
        }
        if self.wire.has_unsent()
            && let Err(why) = ready!(self.poll_flush(cx))
        {
            return Poll::Ready(why);
        }
        Poll::Pending
    }

    /// Sends what waits, and lets those go on who waited for room.
    pub(super) fn poll_flush(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Cow<'static, str>>> {
        let flushed = ready!(self.wire.poll_flush(cx));
        self.wake_senders();
        Poll::Ready(flushed.map_err(|error| error.to_string().into()))
    }

    /// Takes every frame that was read.
    fn take_all(&mut self) -> Result<(), &'static str> {
        let now = clock::now().since(Time::ZERO);
        self.jammed = false;
        while !self.wire.read.is_empty() {
            if self.wire.is_jammed() {
                self.jammed = true;
                break;
            }
            let (input, out) = self.wire.both();
            match self.protocol.receive(input, now, out) {
                Ok(Received::Partial) => break,
                Ok(Received::Frame { consumed, event }) => self.take(consumed, event),
                Err(broken) => return Err(broken.why),
            }
            if self.unseen_resets > UNSEEN_RESETS_MAX {
                let why = "too many requests are given up at once";
                let out = self.wire.front();
                self.protocol.break_off(Code::ENHANCE_YOUR_CALM, why, out);
                return Err(why);
            }
        }
        Ok(())
    }

    fn take(&mut self, consumed: usize, event: Event) {
        match event {
            Event::Data { stream, data, ends } => {
                self.wire.read.advance(data.start);
                let bytes = self.wire.take(data.len());
                self.wire.read.advance(consumed - data.end);
                return self.take_data(stream, bytes, ends);
            }
            Event::Request { stream, head, ends } => {
                let fields = head.as_ref().ok().map(|head| &head.fields);
                let slot = Slot {
                    left: fields.and_then(length),
                    ended: ends,
                    awaits_continue: !ends && fields.is_some_and(expects_continue),
                    ..Slot::default()
                };
                self.slots.insert(stream, slot);
                self.requests.push_back(Request { stream, head });
            }
            Event::Response { stream, head, ends } => {
                if let Some(slot) = self.slots.get_mut(&stream) {
                    slot.left = length(&head.fields);
                    slot.head = Some(head);
                    slot.answered = true;
                    slot.came(None, ends);
                }
            }
            Event::Interim { stream, head } => self.take_interim(stream, head),
            Event::Trailers { stream, fields } => {
                if let Some(slot) = self.slots.get_mut(&stream) {
                    slot.came(Some(Frame::Trailers(fields)), true);
                }
            }
            Event::Reset {
                stream,
                code,
                by_peer,
            } => {
                let end = match by_peer {
                    true => End::Reset(code),
                    false => End::Malformed(code),
                };
                self.fail(stream, end);
                self.forget_unseen(stream);
            }
            Event::Refused => self.refused += 1,
            Event::Room(Some(stream)) => {
                if let Some(slot) = self.slots.get_mut(&stream) {
                    slot.sender.wake();
                }
            }
            Event::Room(None) => {
                for slot in self.slots.values_mut() {
                    slot.sender.wake();
                }
            }
            Event::GoAway { last, .. } => self.fail_above(last),
            Event::Pong(_) => self.ponged = true,
            Event::Nothing => {}
        }
        self.wire.read.advance(consumed);
    }

    /// A request that is over before anybody looked at it is none.
    fn forget_unseen(&mut self, stream: StreamId) {
        let mut requests = self.requests.iter();
        let Some(position) = requests.position(|unseen| unseen.stream == stream) else {
            return;
        };
        self.requests.remove(position);
        if let Some(slot) = self.slots.remove(&stream) {
            let bytes = slot.bytes as u32;
            self.protocol.release(stream, bytes, self.wire.front());
        }
        if !self.speaks_for_many {
            self.unseen_resets += 1;
        }
    }

    fn take_data(&mut self, stream: StreamId, data: Bytes, ends: bool) {
        match self.slots.get_mut(&stream) {
            Some(slot) => {
                let frame = (!data.is_empty()).then_some(Frame::Data(data));
                slot.came(frame, ends);
            }
            None => self
                .protocol
                .release(stream, data.len() as u32, self.wire.front()),
        }
    }

    fn take_interim(&mut self, stream: StreamId, head: ResponseHead) {
        let Some(slot) = self.slots.get_mut(&stream) else {
            return;
        };
        slot.interims += 1;
        slot.interim.push_back(head);
        slot.reader.wake();
        if slot.interims > INTERIM_MAX {
            slot.fail(End::Malformed(Code::ENHANCE_YOUR_CALM));
            let code = Code::ENHANCE_YOUR_CALM;
            self.protocol.reset(stream, code, self.wire.front());
        }
    }

    /// The next request to look at; none for a client that does not take its answers.
    pub(super) fn next_request(&mut self) -> Option<Request> {
        if self.wire.is_jammed() {
            return None;
        }
        let request = self.requests.pop_front();
        if request.is_none() {
            self.unseen_resets = 0;
        }
        request
    }

    /// Whether there is a request to look at, or frames that can be taken now.
    pub(super) fn has_next(&self) -> bool {
        let takes = self.jammed && self.ended.is_none();
        (takes || !self.requests.is_empty()) && !self.wire.is_jammed()
    }

    /// Nobody knows for how long nothing will happen: what only work needs is given back.
    pub(super) fn rest(&mut self) {
        self.protocol.give_back();
        self.slots.shrink_to_fit();
        self.waiting.shrink_to_fit();
        self.requests.shrink_to_fit();
    }

    fn fail(&mut self, stream: StreamId, end: End) {
        if let Some(slot) = self.slots.get_mut(&stream) {
            slot.fail(end);
        }
    }

    /// The peer has not looked at these, and will not.
    fn fail_above(&mut self, last: StreamId) {
        let State {
            slots,
            protocol,
            wire,
            ..
        } = self;
        for (stream, slot) in slots {
            // Only our own: the peer's are those that we did not look at.
            if *stream > last && protocol.is_ours(*stream) && slot.head.is_none() {
                slot.fail(End::Unseen);
                protocol.reset(*stream, Code::CANCEL, wire.front());
            }
        }
    }

    /// Nothing moves any more: everybody is told.
    pub(super) fn end(&mut self, why: Cow<'static, str>) {
        for slot in self.slots.values_mut() {
            slot.fail(End::Lost(why.clone()));
        }
        self.ended.get_or_insert(why);
        self.driver.wake();
    }

    fn wake_senders(&mut self) {
        for stream in std::mem::take(&mut self.waiting) {
            if let Some(slot) = self.slots.get_mut(&stream) {
                slot.sender.wake();
            }
        }
    }

    /// How many bytes of DATA may be sent on a stream at once; zero is waited for. `None`: the stream is over.
    pub(super) fn poll_room(&mut self, stream: StreamId, cx: &Context<'_>) -> Poll<Option<usize>> {
        let room = self.protocol.room(stream);
        let open = self.slots.get_mut(&stream);
        let Some(slot) = open.filter(|slot| slot.end.is_none()) else {
            return Poll::Ready(None);
        };
        match room {
            // The peer has to make room; what is sent to others changes nothing.
            Some(0) => {}
            Some(_) if self.wire.is_full() => {
                if !self.waiting.contains(&stream) {
                    self.waiting.push_back(stream);
                }
            }
            room => return Poll::Ready(room),
        }
        slot.sender.park(cx);
        Poll::Pending
    }

    fn poll_frame(
        &mut self,
        stream: StreamId,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame, BodyError>>> {
        let Some(slot) = self.slots.get_mut(&stream) else {
            let why = "the exchange was over before".into();
            return Poll::Ready(Some(Err(BodyError::Cut(why))));
        };
        let Some(frame) = slot.frames.pop_front() else {
            return match (&slot.end, slot.ended) {
                (_, true) => Poll::Ready(None),
                (Some(End::Malformed(code)), _) => {
                    let why = format!("{code}").into();
                    Poll::Ready(Some(Err(BodyError::Bad(why))))
                }
                (Some(end), _) => Poll::Ready(Some(Err(BodyError::Cut(end.to_string().into())))),
                (None, false) => {
                    if std::mem::take(&mut slot.awaits_continue) {
                        let out = self.wire.front();
                        // Too late when the answer has begun.
                        let _ = self.protocol.inform(stream, 100, &Fields::default(), out);
                    }
                    slot.reader.park(cx);
                    Poll::Pending
                }
            };
        };
        if let Frame::Data(data) = &frame {
            let bytes = data.len() as u64;
            slot.bytes -= bytes;
            slot.left = slot.left.map(|left| left.saturating_sub(bytes));
            let before = self.wire.position();
            self.protocol
                .release(stream, bytes as u32, self.wire.front());
            if self.wire.position() != before {
                self.driver.wake_other(cx);
            }
        }
        Poll::Ready(Some(Ok(frame)))
    }
}

/// Of fields that were judged as they came.
fn length(fields: &Fields) -> Option<u64> {
    fields.content_length().ok().flatten()
}

fn expects_continue(fields: &Fields) -> bool {
    fields.has_token(Known::Expect, "100-continue")
}
