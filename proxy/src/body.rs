//! Bodies on their way through, frame by frame; back-pressure is whoever polls.

use std::borrow::Cow;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use meshgate_codec::Fields;
use meshgate_codec::http1::clean_trailers;
use meshgate_routing::Time;

use crate::clock::now;
use crate::http1::{Inbound, Outcome};
use crate::http2;
use crate::record::Exchange;
use crate::upstream::Held;

/// A piece of a body, or what comes after it.
#[derive(Debug)]
pub(crate) enum Frame {
    Data(Bytes),
    Trailers(Fields),
}

/// Why a body ended early.
#[derive(Debug, Clone)]
pub(crate) enum BodyError {
    /// The other side's connection or stream failed.
    Cut(Cow<'static, str>),
    /// What came is no body.
    Bad(Cow<'static, str>),
    /// Nothing came for too long.
    Slow,
    /// Larger than the listener allows.
    TooLarge,
    /// Another attempt took the body over.
    Superseded,
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cut(why) => write!(f, "the body ended early: {why}"),
            Self::Bad(why) => write!(f, "the body is malformed: {why}"),
            Self::Slow => f.write_str("the body stopped coming"),
            Self::TooLarge => f.write_str("the body is larger than allowed"),
            Self::Superseded => f.write_str("another attempt took the body over"),
        }
    }
}

impl std::error::Error for BodyError {}

/// Where the frames of a message come from that is sent on.
pub(crate) trait Source {
    /// The next piece; `None` after the last.
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>>;

    /// Whether there is nothing more to come.
    fn is_ended(&self) -> bool;

    /// What must go on while nobody wants a piece.
    fn wait(&mut self, cx: &mut Context<'_>);
}

impl Source for RequestBody {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        self.poll_frame(cx)
    }

    fn is_ended(&self) -> bool {
        self.is_ended()
    }

    fn wait(&mut self, _cx: &mut Context<'_>) {}
}

impl Source for ResponseBody {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        self.poll_frame(cx)
    }

    fn is_ended(&self) -> bool {
        self.is_ended()
    }

    fn wait(&mut self, cx: &mut Context<'_>) {
        self.move_request(cx);
    }
}

/// A request's body as it comes from the client.
#[derive(Debug)]
pub(crate) enum Incoming {
    Empty,
    Http1(Inbound),
    Http2(http2::Inbound),
}

impl Incoming {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        match self {
            Self::Empty => Poll::Ready(None),
            Self::Http1(inbound) => inbound.poll_frame(cx),
            Self::Http2(inbound) => inbound.poll_frame(cx),
        }
    }

    pub(crate) fn is_ended(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Http1(inbound) => inbound.is_ended(),
            Self::Http2(inbound) => inbound.is_ended(),
        }
    }

    /// Bytes still to come, if that is known.
    fn length(&self) -> Option<u64> {
        match self {
            Self::Empty => Some(0),
            Self::Http1(inbound) => inbound.length(),
            Self::Http2(inbound) => inbound.length(),
        }
    }
}

/// A request's body, as one attempt sends it.
#[derive(Debug)]
pub(crate) enum RequestBody {
    Empty,
    /// Shared with later attempts.
    Stream {
        replay: Replay,
        attempt: u32,
        /// Bytes of what is kept that this attempt has sent.
        position: usize,
        trailers_sent: bool,
    },
}

/// A body that may be sent more than once, as long as it fits its buffer.
#[derive(Debug, Clone)]
pub(crate) struct Replay(Arc<Mutex<ReplayState>>);

#[derive(Debug)]
struct ReplayState {
    incoming: Incoming,
    /// What was sent, as long as it is small enough to be sent again.
    kept: Vec<u8>,
    kept_bytes_max: usize,
    overflowed: bool,
    /// Since when all of it has come.
    ended: Option<Time>,
    failed: Option<BodyError>,
    trailers: Option<Fields>,
    /// Only the body of this attempt may go on reading.
    attempt: u32,
    bytes: u64,
    bytes_max: Option<u64>,
}

impl RequestBody {
    pub(crate) fn new(incoming: Incoming, bytes_max: Option<u64>) -> Self {
        if incoming.is_ended() {
            return Self::Empty;
        }
        let replay = Replay(Arc::new(Mutex::new(ReplayState {
            incoming,
            kept: Vec::new(),
            kept_bytes_max: 0,
            overflowed: false,
            ended: None,
            failed: None,
            trailers: None,
            attempt: 0,
            bytes: 0,
            bytes_max,
        })));
        Self::Stream {
            replay,
            attempt: 0,
            position: 0,
            trailers_sent: false,
        }
    }

    /// The handle for further attempts; `None` when there is nothing to send.
    pub(crate) fn replay(&self) -> Option<Replay> {
        match self {
            Self::Empty => None,
            Self::Stream { replay, .. } => Some(replay.clone()),
        }
    }
}

impl Replay {
    /// Keeps up to so many bytes for further attempts.
    pub(crate) fn keep(&self, bytes_max: usize) {
        self.lock().kept_bytes_max = bytes_max;
    }

    /// Whether all that was sent is kept, and can be sent again.
    pub(crate) fn is_whole(&self) -> bool {
        let state = self.lock();
        !state.overflowed && state.failed.is_none()
    }

    /// The body for another attempt, if it [is whole](Self::is_whole). The former attempt has lost it: its body ends with
    /// an error, and what it waits for with that.
    pub(crate) fn again(&self) -> RequestBody {
        let mut state = self.lock();
        debug_assert!(!state.overflowed, "what was sent is not kept");
        state.attempt += 1;
        RequestBody::Stream {
            replay: self.clone(),
            attempt: state.attempt,
            position: 0,
            trailers_sent: false,
        }
    }

    /// Why the client's side failed, if it did.
    pub(crate) fn client_failed(&self) -> Option<BodyError> {
        self.lock().failed.clone()
    }

    /// Since when all of it has come from the client; `None`: there is more.
    pub(crate) fn ended(&self) -> Option<Time> {
        self.lock().ended
    }

    /// Bytes read from the client.
    pub(crate) fn bytes(&self) -> u64 {
        self.lock().bytes
    }

    fn lock(&self) -> MutexGuard<'_, ReplayState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ReplayState {
    /// The next frame of the client's, kept if there is room.
    fn poll_client(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        if let Some(failed) = &self.failed {
            return Poll::Ready(Some(Err(failed.clone())));
        }
        let frame = match ready!(self.incoming.poll_frame(cx)) {
            None => {
                self.ended = Some(now());
                return Poll::Ready(None);
            }
            Some(Ok(frame)) => self.take(frame),
            Some(Err(error)) => Err(error),
        };
        if let Err(error) = &frame {
            self.failed = Some(error.clone());
        }
        Poll::Ready(Some(frame))
    }

    fn take(&mut self, frame: Frame) -> Result<Frame, BodyError> {
        let data = match frame {
            Frame::Data(data) => data,
            Frame::Trailers(mut trailers) => {
                clean_trailers(&mut trailers);
                self.ended = Some(now());
                self.trailers = Some(trailers.clone());
                return Ok(Frame::Trailers(trailers));
            }
        };
        self.bytes += data.len() as u64;
        if self.bytes_max.is_some_and(|max| self.bytes > max) {
            return Err(BodyError::TooLarge);
        }
        if self.kept.len() + data.len() > self.kept_bytes_max {
            self.overflowed = true;
            self.kept = Vec::new();
        } else if !self.overflowed {
            self.kept.extend_from_slice(&data);
        }
        if self.incoming.is_ended() {
            self.ended = Some(now());
        }
        Ok(Frame::Data(data))
    }
}

impl RequestBody {
    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame, BodyError>>> {
        let Self::Stream {
            replay,
            attempt,
            position,
            trailers_sent,
        } = self
        else {
            return Poll::Ready(None);
        };
        let mut state = replay.lock();
        if state.attempt != *attempt {
            return Poll::Ready(Some(Err(BodyError::Superseded)));
        }
        if let Some(data) = state.kept.get(*position..).filter(|data| !data.is_empty()) {
            let data = Bytes::copy_from_slice(data);
            *position += data.len();
            return Poll::Ready(Some(Ok(Frame::Data(data))));
        }
        if state.ended.is_some() {
            // Trailers once, then the end.
            let trailers = state.trailers.as_ref().filter(|_| !*trailers_sent);
            let frame = trailers.map(|trailers| Ok(Frame::Trailers(trailers.clone())));
            *trailers_sent = true;
            return Poll::Ready(frame);
        }
        let frame = ready!(state.poll_client(cx));
        match &frame {
            Some(Ok(Frame::Data(_))) => *position = state.kept.len(),
            Some(Ok(Frame::Trailers(_))) => *trailers_sent = true,
            Some(Err(_)) | None => {}
        }
        Poll::Ready(frame)
    }

    /// Whether there is nothing more to send.
    pub(crate) fn is_ended(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Stream {
                replay,
                position,
                trailers_sent,
                ..
            } => {
                let state = replay.lock();
                state.ended.is_some()
                    && *position >= state.kept.len()
                    && (state.trailers.is_none() || *trailers_sent)
            }
        }
    }

    /// Bytes still to send, if that is known.
    pub(crate) fn length(&self) -> Option<u64> {
        match self {
            Self::Empty => Some(0),
            Self::Stream {
                replay, position, ..
            } => {
                let state = replay.lock();
                let to_come = match (state.ended.is_some(), &state.trailers) {
                    // A length would leave no place for them.
                    (_, Some(_)) => None,
                    (true, None) => Some(0),
                    (false, None) => state.incoming.length(),
                };
                let left = state.kept.len().saturating_sub(*position);
                to_come.map(|to_come| to_come + left as u64)
            }
        }
    }
}

/// A response's body, as the client gets it. What belongs to the exchange lives as long as its body: the record, the
/// place in the service's limits, the connection that may be used again.
#[derive(Debug)]
pub(crate) struct ResponseBody {
    source: Origin,
    exchange: Option<Box<Exchange>>,
}

#[derive(Debug)]
enum Origin {
    Own(Bytes),
    Http1 {
        outcome: Box<Outcome>,
        held: Option<Box<Held>>,
    },
    Http2 {
        outcome: Box<http2::Outcome>,
        held: Option<Box<Held>>,
    },
}

impl ResponseBody {
    /// Nothing.
    pub(crate) fn empty() -> Self {
        Self::text(Bytes::new())
    }

    /// A body of the proxy's own.
    pub(crate) fn text(text: impl Into<Bytes>) -> Self {
        Origin::Own(text.into()).into()
    }

    /// An endpoint's, by HTTP/1.
    pub(crate) fn http1(outcome: Box<Outcome>, held: Box<Held>) -> Self {
        let held = Some(held);
        Self::from(Origin::Http1 { outcome, held }).finished_if_ended()
    }

    /// An endpoint's, by HTTP/2.
    pub(crate) fn http2(outcome: Box<http2::Outcome>, held: Box<Held>) -> Self {
        let held = Some(held);
        Self::from(Origin::Http2 { outcome, held }).finished_if_ended()
    }

    /// The record closes when the body does.
    pub(crate) fn recorded(mut self, exchange: Box<Exchange>) -> Self {
        self.exchange = Some(exchange);
        if self.is_ended() {
            self.close_record();
        }
        self
    }

    /// The next piece; `None` after the last. Moves what is left of the request's body on as well.
    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame, BodyError>>> {
        let mut frame = match &mut self.source {
            Origin::Own(text) if text.is_empty() => None,
            Origin::Own(text) => Some(Ok(Frame::Data(std::mem::take(text)))),
            Origin::Http1 { outcome, .. } => ready!(outcome.poll_frame(cx)),
            Origin::Http2 { outcome, .. } => ready!(outcome.poll_frame(cx)),
        };
        if let Some(Ok(Frame::Trailers(trailers))) = &mut frame {
            clean_trailers(trailers);
        }
        if let (Some(Ok(Frame::Data(data))), Some(exchange)) = (&frame, &mut self.exchange) {
            exchange.sent(data.len() as u64);
        }
        match &frame {
            Some(Err(_)) => self.cut(),
            None => self.finish(),
            Some(Ok(_)) if self.is_ended() => self.finish(),
            Some(Ok(_)) => {}
        }
        Poll::Ready(frame)
    }

    /// Moves what is left of the request's body on, when nobody wants more of the answer at this moment.
    pub(crate) fn move_request(&mut self, cx: &mut Context<'_>) {
        match &mut self.source {
            Origin::Own(_) => {}
            Origin::Http1 { outcome, .. } => outcome.move_request(cx),
            Origin::Http2 { outcome, .. } => outcome.move_request(cx),
        }
    }

    /// Whether there is nothing more to come.
    pub(crate) fn is_ended(&self) -> bool {
        match &self.source {
            Origin::Own(text) => text.is_empty(),
            Origin::Http1 { outcome, .. } => outcome.is_ended(),
            Origin::Http2 { outcome, .. } => outcome.is_ended(),
        }
    }

    /// Bytes still to come, if that is known.
    pub(crate) fn length(&self) -> Option<u64> {
        match &self.source {
            Origin::Own(text) => Some(text.len() as u64),
            Origin::Http1 { outcome, .. } => outcome.length(),
            Origin::Http2 { outcome, .. } => outcome.length(),
        }
    }

    fn finished_if_ended(mut self) -> Self {
        if self.is_ended() {
            self.finish();
        }
        self
    }

    /// All of it was read.
    fn finish(&mut self) {
        match &mut self.source {
            Origin::Own(_) => {}
            Origin::Http1 { outcome, held } => {
                if let Some(held) = held.take() {
                    held.complete(outcome.take_connection());
                }
            }
            Origin::Http2 { held, .. } => drop(held.take()),
        }
        self.close_record();
    }

    fn cut(&mut self) {
        if let Origin::Http1 { held, .. } | Origin::Http2 { held, .. } = &mut self.source {
            drop(held.take());
        }
        if let Some(exchange) = self.exchange.take() {
            exchange.cut();
        }
    }

    fn close_record(&mut self) {
        if let Some(exchange) = self.exchange.take() {
            exchange.completed();
        }
    }
}

impl From<Origin> for ResponseBody {
    fn from(source: Origin) -> Self {
        Self {
            source,
            exchange: None,
        }
    }
}
