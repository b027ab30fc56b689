//! The chunked coding, both ways (RFC 9112 §7.1). The decoder never copies data; it says where it is.

use std::num::NonZeroUsize;
use std::ops::Range;

use thiserror::Error;

use super::lines;
use crate::fields::{FieldError, Fields, KnownSet};
use crate::octets;

/// Follows one body, in any parts.
#[derive(Clone, Default, Debug)]
pub struct Decoder {
    state: State,
    extensions_bytes: u32,
    trailers_bytes: u32,
    /// A trailer that is not complete yet.
    line: Vec<u8>,
    trailers: Fields,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Digits read, and the size so far.
    Size { digits: u8, size: u64 },
    /// Bytes of this chunk's extensions.
    Extension { size: u64, bytes: u32 },
    /// Before the LF behind a size.
    SizeEnd { size: u64 },
    /// Bytes to come, at least one.
    Data { left: u64 },
    /// Before the CR behind the data.
    DataCr,
    /// Before the LF behind the data.
    DataLf,
    /// Within the lines after the last chunk.
    Trailers,
    /// All was read.
    Ended,
}

impl Default for State {
    fn default() -> Self {
        Self::Size { digits: 0, size: 0 }
    }
}

/// What some bytes were.
#[derive(Clone, PartialEq, Eq, Debug)]
#[must_use]
pub struct Step {
    /// These bytes need not be shown again.
    pub consumed: usize,
    /// What they hold.
    pub kind: StepKind,
}

/// What a step found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StepKind {
    /// No data; all was consumed and more bytes are needed.
    More,
    /// Data of the body, at this place of the input.
    Data(Range<usize>),
    /// The end of the body; what is behind it belongs to the next message.
    End,
}

/// Why a body is refused.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Error)]
pub enum BadChunk {
    /// Other than 1 to 16 hexadecimal digits.
    #[error("a chunk's size is no number")]
    Size,
    /// Bare LF, bare CR, or data beyond the size.
    #[error("a chunk does not end with CR LF")]
    LineEnd,
    /// More than 256 bytes, or 16 KiB over all chunks.
    #[error("chunk extensions are too long")]
    ExtensionTooLong,
    /// Among the extensions.
    #[error("a control character in a chunk extension")]
    Extension,
    /// As in a head.
    #[error("a trailer is malformed")]
    Trailer,
    /// More than 16 KiB or 64 lines.
    #[error("the trailers are too long")]
    TrailersTooLong,
}

/// Sixteen digits are 64 bits.
const SIZE_DIGITS_MAX: u8 = 16;
/// Extensions are dropped, so they are only a cost: of one chunk, and of all.
const EXTENSION_BYTES_MAX: u32 = 256;
const EXTENSIONS_BYTES_MAX: u32 = 16 * 1024;
const TRAILERS_BYTES_MAX: u32 = 16 * 1024;
const TRAILERS_MAX: usize = 64;

impl Decoder {
    /// Makes ready for another body; the room for trailers stays.
    pub fn clear(&mut self) {
        self.state = State::default();
        self.extensions_bytes = 0;
        self.trailers_bytes = 0;
        self.line.clear();
        self.trailers.clear();
    }

    /// Fields behind the last chunk; complete after [`StepKind::End`]. See
    /// [`clean_trailers`](super::clean_trailers) before they are forwarded.
    pub fn trailers(&mut self) -> &mut Fields {
        &mut self.trailers
    }

    /// Whether the end was seen.
    pub fn is_ended(&self) -> bool {
        self.state == State::Ended
    }

    /// Reads up to the next data or the end. After the end, or after an error, nothing more may be asked.
    #[inline]
    pub fn decode(&mut self, input: &[u8]) -> Result<Step, BadChunk> {
        let mut at = 0;
        while let Some(rest) = input.get(at..).filter(|rest| !rest.is_empty()) {
            match self.state {
                State::Data { left } => return Ok(self.data(left, at, rest.len())),
                State::Trailers => at += self.trailer(rest)?,
                State::Ended => break,
                _ => at += self.between(rest)?,
            }
        }
        let kind = match self.state {
            State::Ended => StepKind::End,
            _ => StepKind::More,
        };
        Ok(Step { consumed: at, kind })
    }

    fn data(&mut self, left: u64, at: usize, available: usize) -> Step {
        // What does not fit in `usize` is more than is available.
        let taken = usize::try_from(left).map_or(available, |left| left.min(available));
        self.state = match left - taken as u64 {
            0 => State::DataCr,
            left => State::Data { left },
        };
        Step {
            consumed: at + taken,
            kind: StepKind::Data(at..at + taken),
        }
    }

    /// What stands between data: byte by byte, as it is short.
    #[inline]
    fn between(&mut self, bytes: &[u8]) -> Result<usize, BadChunk> {
        let mut taken = 0;
        for byte in bytes {
            self.state = self.next(*byte)?;
            taken += 1;
            if matches!(self.state, State::Data { .. } | State::Trailers) {
                break;
            }
        }
        Ok(taken)
    }

    #[inline]
    fn next(&mut self, byte: u8) -> Result<State, BadChunk> {
        Ok(match (self.state, byte) {
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::default(),
            (State::Size { digits: 1.., size }, b'\r') => State::SizeEnd { size },
            (State::Size { digits: 1.., size }, b';') => State::Extension { size, bytes: 0 },
            (State::Size { digits, size }, _) => {
                let digit = char::from(byte).to_digit(16).ok_or(BadChunk::Size)?;
                if digits >= SIZE_DIGITS_MAX {
                    return Err(BadChunk::Size);
                }
                State::Size {
                    digits: digits + 1,
                    size: size << 4 | u64::from(digit),
                }
            }
            (State::SizeEnd { size: 0 }, b'\n') => State::Trailers,
            (State::SizeEnd { size }, b'\n') => State::Data { left: size },
            (State::Extension { size, .. }, b'\r') => State::SizeEnd { size },
            (State::Extension { size, bytes }, _) => {
                if !octets::is_value_byte(byte) {
                    return Err(BadChunk::Extension);
                }
                self.extensions_bytes += 1;
                if bytes >= EXTENSION_BYTES_MAX || self.extensions_bytes > EXTENSIONS_BYTES_MAX {
                    return Err(BadChunk::ExtensionTooLong);
                }
                State::Extension {
                    size,
                    bytes: bytes + 1,
                }
            }
            _ => return Err(BadChunk::LineEnd),
        })
    }

    /// Takes bytes up to the end of a line, and the line when it is complete.
    fn trailer(&mut self, bytes: &[u8]) -> Result<usize, BadChunk> {
        let length = memchr::memchr(b'\n', bytes).map_or(bytes.len(), |feed| feed + 1);
        let left = TRAILERS_BYTES_MAX - self.trailers_bytes;
        let left = usize::try_from(left).map_err(|_| BadChunk::TrailersTooLong)?;
        // The empty line is not counted, so that the limit does not depend on where reads end.
        let part = bytes.get(..length).unwrap_or_default();
        if self.line.len() + part.len() > left + END.len() {
            return Err(BadChunk::TrailersTooLong);
        }
        self.line.extend_from_slice(part);
        let Some(line) = self.line.strip_suffix(b"\n") else {
            return Ok(length);
        };
        let line = line.strip_suffix(b"\r").ok_or(BadChunk::LineEnd)?;
        if line.is_empty() {
            self.state = State::Ended;
            return Ok(length);
        }
        if self.line.len() > left || self.trailers.len() >= TRAILERS_MAX {
            return Err(BadChunk::TrailersTooLong);
        }
        let field = lines::field(line).map_err(|_| BadChunk::Trailer)?;
        self.trailers
            .append_line(field)
            .map_err(|error| match error {
                FieldError::TooLong => BadChunk::TrailersTooLong,
                FieldError::BadName | FieldError::BadValue => BadChunk::Trailer,
            })?;
        self.trailers_bytes += self.line.len() as u32;
        self.line.clear();
        Ok(length)
    }
}

const END: &[u8] = b"\r\n";

/// What stands before a chunk's data. A chunk cannot be empty: that would be the end of the body.
#[inline]
pub fn encode_chunk_head(length: NonZeroUsize, out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let nibbles = (usize::BITS - length.leading_zeros()).div_ceil(4);
    for nibble in (0..nibbles).rev() {
        out.push(DIGITS[length.get() >> (nibble * 4) & 0xf]);
    }
    out.extend_from_slice(END);
}

/// What stands behind a chunk's data.
pub const CHUNK_END: &[u8] = END;

/// The end of a body, with trailers if there are any.
pub fn encode_last(trailers: Option<&Fields>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"0\r\n");
    if let Some(trailers) = trailers {
        trailers.write_lines(KnownSet::EMPTY, out);
    }
    out.extend_from_slice(END);
}

#[cfg(test)]
mod tests;
