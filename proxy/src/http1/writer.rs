//! A message's body, into a connection's bytes.

use std::num::NonZeroUsize;

use meshgate_codec::http1::{CHUNK_END, Framing, encode_chunk_head, encode_last};

use crate::body::{BodyError, Frame};
use crate::wire::Wire;

/// How much of a body is still to be written. What was announced is what is written, whatever the source says.
#[derive(Debug)]
pub(super) enum Writer {
    Ended,
    Length(u64),
    Chunked,
    /// Until the connection closes.
    UntilClose,
}

impl From<Framing> for Writer {
    fn from(framing: Framing) -> Self {
        match framing {
            Framing::None | Framing::Announced(_) => Self::Ended,
            Framing::Length(bytes) => Self::Length(bytes),
            Framing::Chunked => Self::Chunked,
            Framing::UntilClose => Self::UntilClose,
        }
    }
}

impl Writer {
    pub(super) fn is_ended(&self) -> bool {
        matches!(self, Self::Ended)
    }

    /// Puts the next piece, or the end, behind what waits to be written. Only when the wire is not full.
    pub(super) fn put(&mut self, wire: &mut Wire, frame: Option<Frame>) -> Result<(), BodyError> {
        match frame {
            Some(Frame::Data(data)) => {
                let Some(length) = NonZeroUsize::new(data.len()) else {
                    return Ok(());
                };
                match self {
                    Self::Chunked => {
                        encode_chunk_head(length, wire.front());
                        wire.put(data, CHUNK_END);
                    }
                    Self::Length(left) => {
                        let longer = || BodyError::Cut("longer than announced".into());
                        *left = left.checked_sub(data.len() as u64).ok_or_else(longer)?;
                        wire.put(data, b"");
                    }
                    Self::UntilClose => wire.put(data, b""),
                    Self::Ended => return Err(BodyError::Cut("longer than announced".into())),
                }
                return Ok(());
            }
            Some(Frame::Trailers(trailers)) if matches!(self, Self::Chunked) => {
                encode_last(Some(&trailers), wire.front());
            }
            Some(Frame::Trailers(_)) | None => match self {
                Self::Chunked => encode_last(None, wire.front()),
                Self::Length(1..) => return Err(BodyError::Cut("shorter than announced".into())),
                Self::Length(0) | Self::UntilClose | Self::Ended => {}
            },
        }
        *self = Self::Ended;
        Ok(())
    }
}
