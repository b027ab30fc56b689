//! A message's body, out of a connection's bytes.

use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use meshgate_codec::http1::{Decoder, Framing, StepKind};

use crate::body::{BodyError, Frame};
use crate::wire::{Expect, Wire};

/// How much of a body is still to come.
#[derive(Debug)]
pub(crate) enum Reader {
    Ended,
    Length(u64),
    Chunked(Box<Decoder>),
    /// Until the peer closes.
    UntilClose,
    /// What came was no body; nobody knows what anything behind it is.
    Lost,
}

impl From<Framing> for Reader {
    fn from(framing: Framing) -> Self {
        match framing {
            Framing::None | Framing::Announced(_) | Framing::Length(0) => Self::Ended,
            Framing::Length(bytes) => Self::Length(bytes),
            Framing::Chunked => Self::Chunked(Box::default()),
            Framing::UntilClose => Self::UntilClose,
        }
    }
}

impl Reader {
    pub(crate) fn is_ended(&self) -> bool {
        matches!(self, Self::Ended)
    }

    /// What is still to come, in bytes, if that is known.
    pub(crate) fn length(&self) -> Option<u64> {
        match self {
            Self::Ended => Some(0),
            Self::Length(left) => Some(*left),
            Self::Chunked(_) | Self::UntilClose | Self::Lost => None,
        }
    }

    /// The next piece; `None` after the last.
    pub(super) fn poll_frame(
        &mut self,
        wire: &mut Wire,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame, BodyError>>> {
        loop {
            if let Some(frame) = self.take(wire).transpose() {
                return Poll::Ready(Some(frame));
            }
            if self.is_ended() {
                return Poll::Ready(None);
            }
            match ready!(wire.poll_fill(cx, Expect::Body)) {
                Ok(0) if matches!(self, Self::UntilClose) => *self = Self::Ended,
                Ok(0) => {
                    return Poll::Ready(Some(Err(BodyError::Cut("closed within a body".into()))));
                }
                Ok(_) => {}
                Err(error) => {
                    return Poll::Ready(Some(Err(BodyError::Cut(error.to_string().into()))));
                }
            }
        }
    }

    /// What can be had from bytes that were read.
    fn take(&mut self, wire: &mut Wire) -> Result<Option<Frame>, BodyError> {
        match self {
            Self::Ended => Ok(None),
            Self::Lost => Err(BodyError::Bad("it was malformed before".into())),
            Self::UntilClose => Ok(some_data(wire.take(wire.read.len()))),
            Self::Length(left) => {
                let count = usize::try_from(*left)
                    .unwrap_or(usize::MAX)
                    .min(wire.read.len());
                *left -= count as u64;
                let data = wire.take(count);
                if *left == 0 {
                    *self = Self::Ended;
                }
                Ok(some_data(data))
            }
            Self::Chunked(decoder) => {
                let step = match decoder.decode(&wire.read) {
                    Ok(step) => step,
                    Err(bad) => {
                        *self = Self::Lost;
                        return Err(BodyError::Bad(bad.to_string().into()));
                    }
                };
                match step.kind {
                    StepKind::More => wire.read.advance(step.consumed),
                    StepKind::Data(data) => {
                        wire.read.advance(data.start);
                        let bytes = wire.take(data.len());
                        wire.read.advance(step.consumed - data.end);
                        return Ok(some_data(bytes));
                    }
                    StepKind::End => {
                        wire.read.advance(step.consumed);
                        let trailers = std::mem::take(decoder.trailers());
                        *self = Self::Ended;
                        return Ok((!trailers.is_empty()).then_some(Frame::Trailers(trailers)));
                    }
                }
                Ok(None)
            }
        }
    }
}

fn some_data(data: Bytes) -> Option<Frame> {
    (!data.is_empty()).then_some(Frame::Data(data))
}
