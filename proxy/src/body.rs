//! Bodies on their way through, frame by frame; back-pressure is whoever polls.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use crate::headers;
use crate::record::Exchange;
use crate::serve::OpenExchange;
use crate::upstream::Held;

/// Why a body ended early.
#[derive(Debug)]
pub(crate) enum BodyError {
    /// The other side's connection or stream failed.
    Cut(hyper::Error),
    /// Larger than the listener allows.
    TooLarge,
    /// Another attempt took the body over.
    Superseded,
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cut(_) => "the body ended early",
            Self::TooLarge => "the body is larger than allowed",
            Self::Superseded => "another attempt took the body over",
        })
    }
}

impl std::error::Error for BodyError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Cut(error) => Some(error),
            Self::TooLarge | Self::Superseded => None,
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
        position: usize,
    },
}

/// A body that may be sent more than once, as long as it fits its buffer.
#[derive(Debug, Clone)]
pub(crate) struct Replay(Arc<Mutex<ReplayState>>);

#[derive(Debug)]
struct ReplayState {
    incoming: Incoming,
    /// What was sent, as long as it is small enough to be sent again.
    kept: Vec<Bytes>,
    kept_bytes: usize,
    kept_bytes_max: usize,
    overflowed: bool,
    ended: bool,
    failed: bool,
    too_large: bool,
    trailers: Option<HeaderMap>,
    /// Only the body of this attempt may go on reading.
    attempt: u32,
    bytes: u64,
    bytes_max: Option<u64>,
}

impl RequestBody {
    pub(crate) fn new(incoming: Incoming, bytes_max: Option<u64>) -> Self {
        if incoming.is_end_stream() {
            return Self::Empty;
        }
        let replay = Replay(Arc::new(Mutex::new(ReplayState {
            incoming,
            kept: Vec::new(),
            kept_bytes: 0,
            kept_bytes_max: 0,
            overflowed: false,
            ended: false,
            failed: false,
            too_large: false,
            trailers: None,
            attempt: 0,
            bytes: 0,
            bytes_max,
        })));
        Self::Stream {
            replay,
            attempt: 0,
            position: 0,
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

    /// The body for another attempt; the former one's ends with an error. `None` when it cannot be sent again.
    pub(crate) fn again(&self) -> Option<RequestBody> {
        let mut state = self.lock();
        if state.overflowed || state.failed {
            return None;
        }
        state.attempt += 1;
        Some(RequestBody::Stream {
            replay: self.clone(),
            attempt: state.attempt,
            position: 0,
        })
    }

    /// All of it was read from the client.
    pub(crate) fn ended(&self) -> bool {
        self.lock().ended
    }

    /// Why the client's side failed, if it did.
    pub(crate) fn client_failed(&self) -> Option<bool> {
        let state = self.lock();
        state.failed.then_some(state.too_large)
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
    fn poll_client(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.ended {
            return Poll::Ready(
                self.trailers
                    .clone()
                    .map(|trailers| Ok(Frame::trailers(trailers))),
            );
        }
        if self.too_large {
            return Poll::Ready(Some(Err(BodyError::TooLarge)));
        }
        let frame = std::task::ready!(Pin::new(&mut self.incoming).poll_frame(cx));
        match frame {
            None => {
                self.ended = true;
                Poll::Ready(None)
            }
            Some(Err(error)) => {
                self.failed = true;
                Poll::Ready(Some(Err(BodyError::Cut(error))))
            }
            Some(Ok(frame)) => Poll::Ready(Some(self.take(frame))),
        }
    }

    fn take(&mut self, frame: Frame<Bytes>) -> Result<Frame<Bytes>, BodyError> {
        let data = match frame.into_data() {
            Ok(data) => data,
            Err(frame) => {
                let mut trailers = frame.into_trailers().unwrap_or_default();
                headers::clean_trailers(&mut trailers);
                self.ended = true;
                self.trailers = Some(trailers.clone());
                return Ok(Frame::trailers(trailers));
            }
        };
        self.bytes += data.len() as u64;
        if self.bytes_max.is_some_and(|max| self.bytes > max) {
            self.failed = true;
            self.too_large = true;
            return Err(BodyError::TooLarge);
        }
        if self.kept_bytes + data.len() > self.kept_bytes_max {
            self.overflowed = true;
            self.kept = Vec::new();
        } else if !self.overflowed {
            self.kept_bytes += data.len();
            self.kept.push(data.clone());
        }
        if self.incoming.is_end_stream() {
            self.ended = true;
        }
        Ok(Frame::data(data))
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Self::Stream {
            replay,
            attempt,
            position,
        } = self.get_mut()
        else {
            return Poll::Ready(None);
        };
        let mut state = replay.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.attempt != *attempt {
            return Poll::Ready(Some(Err(BodyError::Superseded)));
        }
        if let Some(data) = state.kept.get(*position) {
            *position += 1;
            return Poll::Ready(Some(Ok(Frame::data(data.clone()))));
        }
        if state.ended {
            // Trailers once, then the end.
            let trailers = state.trailers.as_ref().filter(|_| *position != usize::MAX);
            let frame = trailers.map(|trailers| Ok(Frame::trailers(trailers.clone())));
            *position = usize::MAX;
            return Poll::Ready(frame);
        }
        let frame = std::task::ready!(state.poll_client(cx));
        if let Some(Ok(frame)) = &frame {
            *position = match frame.is_data() {
                true => state.kept.len(),
                false => usize::MAX,
            };
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Stream {
                replay, position, ..
            } => {
                let state = replay.lock();
                state.ended
                    && *position >= state.kept.len()
                    && (state.trailers.is_none() || *position == usize::MAX)
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Stream {
                replay, position, ..
            } => {
                let state = replay.lock();
                let left: usize = state.kept.iter().skip(*position).map(Bytes::len).sum();
                let hint = state.incoming.size_hint();
                match hint.exact() {
                    Some(exact) => SizeHint::with_exact(exact + left as u64),
                    None => SizeHint::default(),
                }
            }
        }
    }
}

/// A response's body, as the client gets it. What belongs to the exchange lives as long as its body: the record, the
/// place in the service's limits, the connection that may be used again.
#[derive(Debug)]
pub(crate) struct ResponseBody {
    source: Source,
    exchange: Option<Box<Exchange>>,
    open: Option<OpenExchange>,
}

#[derive(Debug)]
enum Source {
    Own(VecDeque<Frame<Bytes>>),
    Upstream {
        incoming: Incoming,
        held: Option<Box<Held>>,
    },
}

impl ResponseBody {
    /// Nothing.
    pub(crate) fn empty() -> Self {
        Self::own(VecDeque::new())
    }

    /// A body of the proxy's own.
    pub(crate) fn text(text: impl Into<Bytes>) -> Self {
        Self::own(VecDeque::from([Frame::data(text.into())]))
    }

    fn own(frames: VecDeque<Frame<Bytes>>) -> Self {
        Self {
            source: Source::Own(frames),
            exchange: None,
            open: None,
        }
    }

    /// An endpoint's.
    pub(crate) fn upstream(incoming: Incoming, held: Box<Held>) -> Self {
        let mut body = Self {
            source: Source::Upstream {
                incoming,
                held: Some(held),
            },
            exchange: None,
            open: None,
        };
        body.finish_if_ended();
        body
    }

    /// The record closes when the body does.
    pub(crate) fn recorded(mut self, exchange: Box<Exchange>) -> Self {
        self.exchange = Some(exchange);
        if self.is_end_stream() {
            self.close_record();
        }
        self
    }

    /// The connection is in use as long as the body is.
    pub(crate) fn during(mut self, open: Option<OpenExchange>) -> Self {
        self.open = open;
        self
    }

    fn close_record(&mut self) {
        if let Some(exchange) = self.exchange.take() {
            exchange.completed();
        }
    }

    fn finish_if_ended(&mut self) {
        if let Source::Upstream { incoming, held } = &mut self.source
            && incoming.is_end_stream()
            && let Some(held) = held.take()
        {
            held.complete();
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let frame = match &mut this.source {
            Source::Own(frames) => frames.pop_front().map(Ok),
            Source::Upstream { incoming, held } => {
                let frame = std::task::ready!(Pin::new(incoming).poll_frame(cx));
                match frame {
                    Some(Err(error)) => {
                        if let Some(held) = held.take() {
                            held.cut();
                        }
                        if let Some(exchange) = this.exchange.take() {
                            exchange.cut();
                        }
                        return Poll::Ready(Some(Err(BodyError::Cut(error))));
                    }
                    Some(Ok(frame)) => Some(Ok(frame)),
                    None => {
                        if let Some(held) = held.take() {
                            held.complete();
                        }
                        None
                    }
                }
            }
        };
        this.finish_if_ended();
        if let (Some(Ok(frame)), Some(exchange)) = (&frame, &mut this.exchange)
            && let Some(data) = frame.data_ref()
        {
            exchange.sent(data.len() as u64);
        }
        if frame.is_none() || this.is_end_stream() {
            this.close_record();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Own(frames) => frames.is_empty(),
            Source::Upstream { incoming, .. } => incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Own(frames) => {
                let bytes = frames
                    .iter()
                    .filter_map(Frame::data_ref)
                    .map(Bytes::len)
                    .sum::<usize>();
                SizeHint::with_exact(bytes as u64)
            }
            Source::Upstream { incoming, .. } => incoming.size_hint(),
        }
    }
}
