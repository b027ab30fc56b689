//! Frames (RFC 9113 §4 and §6): read one by one, with everything judged that a frame tells by itself.

use std::ops::Range;

use super::code::Code;
use super::error::{Broken, StreamId};

/// Length, type, flags, stream.
pub(super) const HEAD_BYTES: usize = 9;
/// The payload of a frame, both ways: RFC 9113's default, which everybody must take.
pub(super) const PAYLOAD_BYTES_MAX: usize = 16 * 1024;

const END_STREAM: u8 = 0x1;
const ACK: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

/// Types.
const DATA: u8 = 0x0;
const HEADERS: u8 = 0x1;
const PRIORITY_FRAME: u8 = 0x2;
const RST_STREAM: u8 = 0x3;
const SETTINGS: u8 = 0x4;
const PUSH_PROMISE: u8 = 0x5;
const PING: u8 = 0x6;
const GOAWAY: u8 = 0x7;
const WINDOW_UPDATE: u8 = 0x8;
const CONTINUATION: u8 = 0x9;

/// A frame. Ranges are places in what it was read from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Frame {
    Data {
        stream: StreamId,
        data: Range<usize>,
        /// What flow control counts: padding too.
        flow: u32,
        ends: bool,
    },
    Headers {
        stream: StreamId,
        block: Range<usize>,
        ends: bool,
        complete: bool,
        /// The stream is said to depend on itself.
        own_parent: bool,
    },
    Continuation {
        stream: StreamId,
        block: Range<usize>,
        complete: bool,
    },
    Priority {
        stream: StreamId,
        /// Of the wrong length, or depending on itself.
        bad: Option<Code>,
    },
    Reset {
        stream: StreamId,
        code: Code,
    },
    /// Identifiers and values, six bytes each.
    Settings(Range<usize>),
    SettingsAck,
    Ping([u8; 8]),
    Pong([u8; 8]),
    GoAway {
        last: StreamId,
        code: Code,
    },
    /// For the connection when the stream is 0.
    WindowUpdate {
        stream: StreamId,
        bytes: u32,
    },
    /// Of a type that nobody knows, to be passed over.
    Unknown,
}

/// The first frame of the input and its length; `None` when more bytes are needed. `most` is the payload's.
pub(super) fn read(input: &[u8], most: usize) -> Result<Option<(Frame, usize)>, Broken> {
    let Some((head, rest)) = input.split_first_chunk::<HEAD_BYTES>() else {
        return Ok(None);
    };
    let [a, b, c, kind, flags, id @ ..] = *head;
    let length = u32::from_be_bytes([0, a, b, c]) as usize;
    if length > most {
        return Err(Broken::frame_size("a frame is longer than allowed"));
    }
    let stream = stream_id(id);
    // What can be judged by the head is not waited for.
    judge(kind, flags, length, stream)?;
    let Some(payload) = rest.get(..length) else {
        return Ok(None);
    };
    let frame = Reader {
        kind,
        flags,
        stream,
        payload,
    };
    Ok(Some((frame.read()?, HEAD_BYTES + length)))
}

fn stream_id(bytes: [u8; 4]) -> StreamId {
    // The first bit means nothing (RFC 9113 §4.1).
    u32::from_be_bytes(bytes) & 0x7fff_ffff
}

/// Which frames go with a stream, and how long they are.
fn judge(kind: u8, flags: u8, length: usize, stream: StreamId) -> Result<(), Broken> {
    let of_stream = matches!(
        kind,
        DATA | HEADERS | PRIORITY_FRAME | RST_STREAM | CONTINUATION
    );
    let of_connection = matches!(kind, SETTINGS | PING | GOAWAY);
    if of_stream && stream == 0 || of_connection && stream != 0 {
        return Err(Broken::protocol("a frame is on the wrong stream"));
    }
    if kind == PUSH_PROMISE {
        return Err(Broken::protocol("a push that nobody allowed"));
    }
    let fits = match kind {
        RST_STREAM | WINDOW_UPDATE => length == 4,
        SETTINGS if flags & ACK != 0 => length == 0,
        SETTINGS => length.is_multiple_of(6),
        PING => length == 8,
        GOAWAY => length >= 8,
        _ => true,
    };
    match fits {
        true => Ok(()),
        false => Err(Broken::frame_size("a frame has an impossible length")),
    }
}

struct Reader<'a> {
    kind: u8,
    flags: u8,
    stream: StreamId,
    payload: &'a [u8],
}

impl Reader<'_> {
    fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    fn number(&self, at: usize) -> u32 {
        let bytes = self
            .payload
            .get(at..)
            .and_then(|rest| rest.first_chunk::<4>());
        bytes.map_or(0, |bytes| u32::from_be_bytes(*bytes))
    }

    fn opaque(&self) -> [u8; 8] {
        self.payload.first_chunk::<8>().copied().unwrap_or_default()
    }

    fn read(&self) -> Result<Frame, Broken> {
        let stream = self.stream;
        Ok(match self.kind {
            DATA => Frame::Data {
                stream,
                data: place(self.unpadded(0)?),
                flow: u32::try_from(self.payload.len()).unwrap_or(u32::MAX),
                ends: self.has(END_STREAM),
            },
            HEADERS => self.headers()?,
            CONTINUATION => Frame::Continuation {
                stream,
                block: place(0..self.payload.len()),
                complete: self.has(END_HEADERS),
            },
            PRIORITY_FRAME => Frame::Priority {
                stream,
                bad: match self.payload.len() {
                    5 if self.parent(0) != stream => None,
                    5 => Some(Code::PROTOCOL_ERROR),
                    _ => Some(Code::FRAME_SIZE_ERROR),
                },
            },
            RST_STREAM => Frame::Reset {
                stream,
                code: Code(self.number(0)),
            },
            SETTINGS if self.has(ACK) => Frame::SettingsAck,
            SETTINGS => Frame::Settings(place(0..self.payload.len())),
            PING if self.has(ACK) => Frame::Pong(self.opaque()),
            PING => Frame::Ping(self.opaque()),
            GOAWAY => Frame::GoAway {
                last: self.number(0) & 0x7fff_ffff,
                code: Code(self.number(4)),
            },
            WINDOW_UPDATE => Frame::WindowUpdate {
                stream,
                bytes: self.number(0) & 0x7fff_ffff,
            },
            _ => Frame::Unknown,
        })
    }

    fn headers(&self) -> Result<Frame, Broken> {
        let weighted = self.has(PRIORITY);
        let ahead = if weighted { 5 } else { 0 };
        let block = self.unpadded(ahead)?;
        let parent_at = usize::from(self.has(PADDED));
        Ok(Frame::Headers {
            stream: self.stream,
            block: place(block),
            ends: self.has(END_STREAM),
            complete: self.has(END_HEADERS),
            own_parent: weighted && self.parent(parent_at) == self.stream,
        })
    }

    fn parent(&self, at: usize) -> StreamId {
        self.number(at) & 0x7fff_ffff
    }

    /// The payload without padding and without `ahead` bytes in front.
    fn unpadded(&self, ahead: usize) -> Result<Range<usize>, Broken> {
        let (start, padding) = match (self.has(PADDED), self.payload.first()) {
            (false, _) => (ahead, 0),
            (true, Some(padding)) => (1 + ahead, usize::from(*padding)),
            (true, None) => return Err(Broken::frame_size("no room for the padding's length")),
        };
        match self.payload.len().checked_sub(padding) {
            Some(end) if start <= end => Ok(start..end),
            _ if self.payload.len() < start => {
                Err(Broken::frame_size("a frame is shorter than its fields"))
            }
            _ => Err(Broken::protocol("padding is longer than the frame")),
        }
    }
}

/// A place in the payload as one in the input.
fn place(range: Range<usize>) -> Range<usize> {
    range.start + HEAD_BYTES..range.end + HEAD_BYTES
}

fn head(length: usize, kind: u8, flags: u8, stream: StreamId) -> [u8; HEAD_BYTES] {
    // No payload of ours is longer than 24 bits can say.
    let [_, a, b, c] = (length as u32).to_be_bytes();
    let [d, e, f, g] = stream.to_be_bytes();
    [a, b, c, kind, flags, d, e, f, g]
}

fn write_head(length: usize, kind: u8, flags: u8, stream: StreamId, out: &mut Vec<u8>) {
    out.extend_from_slice(&head(length, kind, flags, stream));
}

/// The head of a DATA frame; the payload is to follow.
pub(super) fn write_data_head(stream: StreamId, length: usize, ends: bool, out: &mut Vec<u8>) {
    write_head(length, DATA, if ends { END_STREAM } else { 0 }, stream, out);
}

/// Makes a header block that was written behind `start` of `out`, after room for a head, into frames.
pub(super) fn finish_block(stream: StreamId, ends: bool, start: usize, out: &mut Vec<u8>) {
    let block = start + HEAD_BYTES;
    let length = out.len() - block;
    let end_stream = if ends { END_STREAM } else { 0 };
    if length <= PAYLOAD_BYTES_MAX {
        if let Some(room) = out.get_mut(start..block) {
            room.copy_from_slice(&head(length, HEADERS, END_HEADERS | end_stream, stream));
        }
        return;
    }
    let whole = out.split_off(start).split_off(HEAD_BYTES);
    let last = whole.len().div_ceil(PAYLOAD_BYTES_MAX) - 1;
    for (index, piece) in whole.chunks(PAYLOAD_BYTES_MAX).enumerate() {
        let (kind, mut flags) = match index {
            0 => (HEADERS, end_stream),
            _ => (CONTINUATION, 0),
        };
        if index == last {
            flags |= END_HEADERS;
        }
        write_head(piece.len(), kind, flags, stream, out);
        out.extend_from_slice(piece);
    }
}

pub(super) fn write_reset(stream: StreamId, code: Code, out: &mut Vec<u8>) {
    write_head(4, RST_STREAM, 0, stream, out);
    out.extend_from_slice(&code.0.to_be_bytes());
}

pub(super) fn write_settings(settings: &[(u16, u32)], out: &mut Vec<u8>) {
    write_head(settings.len() * 6, SETTINGS, 0, 0, out);
    for (id, value) in settings {
        out.extend_from_slice(&id.to_be_bytes());
        out.extend_from_slice(&value.to_be_bytes());
    }
}

pub(super) fn write_settings_ack(out: &mut Vec<u8>) {
    write_head(0, SETTINGS, ACK, 0, out);
}

pub(super) fn write_ping(opaque: [u8; 8], out: &mut Vec<u8>) {
    write_head(8, PING, 0, 0, out);
    out.extend_from_slice(&opaque);
}

pub(super) fn write_pong(opaque: [u8; 8], out: &mut Vec<u8>) {
    write_head(8, PING, ACK, 0, out);
    out.extend_from_slice(&opaque);
}

pub(super) fn write_go_away(last: StreamId, code: Code, why: &str, out: &mut Vec<u8>) {
    write_head(8 + why.len(), GOAWAY, 0, 0, out);
    out.extend_from_slice(&last.to_be_bytes());
    out.extend_from_slice(&code.0.to_be_bytes());
    out.extend_from_slice(why.as_bytes());
}

pub(super) fn write_window_update(stream: StreamId, bytes: u32, out: &mut Vec<u8>) {
    write_head(4, WINDOW_UPDATE, 0, stream, out);
    out.extend_from_slice(&bytes.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Length, type, flags, stream, payload.
    fn bytes(length: usize, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        write_head(length, kind, flags, stream, &mut out);
        out.extend_from_slice(payload);
        out
    }

    fn check(kind: u8, flags: u8, stream: u32, payload: &[u8], expected: Result<Frame, Code>) {
        let input = bytes(payload.len(), kind, flags, stream, payload);
        for cut in 0..input.len() {
            let early = read(&input[..cut], PAYLOAD_BYTES_MAX);
            assert!(
                matches!(early, Ok(None)) || early.is_err() && expected.is_err(),
                "type {kind} cut at {cut}: {early:?}"
            );
        }
        let found = read(&input, PAYLOAD_BYTES_MAX);
        let length = input.len();
        let expected = expected.map(|frame| Some((frame, length)));
        assert_eq!(found.map_err(|broken| broken.code), expected, "type {kind}");
    }

    fn headers(block: Range<usize>, own_parent: bool) -> Result<Frame, Code> {
        Ok(Frame::Headers {
            stream: 1,
            block,
            ends: false,
            complete: true,
            own_parent,
        })
    }

    #[test]
    fn data_and_padding() {
        let data = |data, flow| {
            Ok(Frame::Data {
                stream: 1,
                data,
                flow,
                ends: true,
            })
        };
        check(DATA, 1, 1, b"abc", data(9..12, 3));
        check(DATA, 1, 1, b"", data(9..9, 0));
        check(DATA, 9, 1, b"\x02abc..", data(10..13, 6));
        check(DATA, 9, 1, b"\x00", data(10..10, 1));
        check(DATA, 9, 1, b"\x01", Err(Code::PROTOCOL_ERROR));
        check(DATA, 9, 1, b"\x07abc..", Err(Code::PROTOCOL_ERROR));
        check(DATA, 9, 1, b"", Err(Code::FRAME_SIZE_ERROR));
        check(DATA, 0, 0, b"abc", Err(Code::PROTOCOL_ERROR));
        check(HEADERS, 4, 1, b"abc", headers(9..12, false));
        check(HEADERS, 12, 1, b"\x02abc..", headers(10..13, false));
        check(HEADERS, 0x24, 1, b"\0\0\0\x03wabc", headers(14..17, false));
        check(HEADERS, 0x24, 1, b"\0\0\0\x01wabc", headers(14..17, true));
        let padded = b"\x01\x80\0\0\x01wabc.";
        check(HEADERS, 0x2c, 1, padded, headers(15..18, true));
        check(HEADERS, 0x24, 1, b"\0\0\0", Err(Code::FRAME_SIZE_ERROR));
        check(HEADERS, 4, 0, b"abc", Err(Code::PROTOCOL_ERROR));
    }

    #[test]
    fn frames_of_exact_lengths() {
        let reset = Frame::Reset {
            stream: 3,
            code: Code::CANCEL,
        };
        check(RST_STREAM, 0, 3, &[0, 0, 0, 8], Ok(reset));
        check(RST_STREAM, 0, 3, &[0; 3], Err(Code::FRAME_SIZE_ERROR));
        check(RST_STREAM, 0, 0, &[0; 4], Err(Code::PROTOCOL_ERROR));
        check(SETTINGS, 0, 0, &[0; 12], Ok(Frame::Settings(9..21)));
        check(SETTINGS, 0, 0, &[0; 5], Err(Code::FRAME_SIZE_ERROR));
        check(SETTINGS, 0, 1, &[], Err(Code::PROTOCOL_ERROR));
        check(SETTINGS, 1, 0, &[], Ok(Frame::SettingsAck));
        check(SETTINGS, 1, 0, &[0; 6], Err(Code::FRAME_SIZE_ERROR));
        check(PING, 0, 0, b"12345678", Ok(Frame::Ping(*b"12345678")));
        check(PING, 1, 0, b"12345678", Ok(Frame::Pong(*b"12345678")));
        check(PING, 0, 0, b"1234567", Err(Code::FRAME_SIZE_ERROR));
        check(PING, 0, 1, b"12345678", Err(Code::PROTOCOL_ERROR));
        let go_away = Frame::GoAway {
            last: 5,
            code: Code(0xff),
        };
        check(GOAWAY, 0, 0, b"\x80\0\0\x05\0\0\0\xffwhy", Ok(go_away));
        check(GOAWAY, 0, 0, &[0; 7], Err(Code::FRAME_SIZE_ERROR));
        let update = |stream| Frame::WindowUpdate { stream, bytes: 1 };
        check(WINDOW_UPDATE, 0, 0, &[0x80, 0, 0, 1], Ok(update(0)));
        check(WINDOW_UPDATE, 0, 7, &[0, 0, 0, 1], Ok(update(7)));
        check(WINDOW_UPDATE, 0, 7, &[0; 5], Err(Code::FRAME_SIZE_ERROR));
        let priority = |bad| Ok(Frame::Priority { stream: 3, bad });
        check(PRIORITY_FRAME, 0, 3, &[0; 5], priority(None));
        let long = priority(Some(Code::FRAME_SIZE_ERROR));
        check(PRIORITY_FRAME, 0, 3, &[0; 6], long);
        let own = priority(Some(Code::PROTOCOL_ERROR));
        check(PRIORITY_FRAME, 0, 3, &[0, 0, 0, 3, 0], own);
        check(PUSH_PROMISE, 4, 1, &[0; 4], Err(Code::PROTOCOL_ERROR));
        check(CONTINUATION, 0, 0, &[0; 4], Err(Code::PROTOCOL_ERROR));
        check(0x77, 0xff, 9, &[0; 4], Ok(Frame::Unknown));
    }

    #[test]
    fn what_is_too_long_is_refused_by_its_head() {
        let input = bytes(PAYLOAD_BYTES_MAX + 1, DATA, 0, 1, b"");
        let found = read(&input, PAYLOAD_BYTES_MAX).map_err(|broken| broken.code);
        assert_eq!(found, Err(Code::FRAME_SIZE_ERROR));
    }

    fn check_block(length: usize, expected: &[(u8, u8, usize)]) {
        let mut out = b"before".to_vec();
        let start = out.len();
        out.extend_from_slice(&[0; HEAD_BYTES]);
        let block: Vec<u8> = (0..length).map(|index| index as u8).collect();
        out.extend_from_slice(&block);
        finish_block(5, true, start, &mut out);
        let (mut rest, mut frames, mut joined) = (&out[start..], Vec::new(), Vec::new());
        while let Some((head, behind)) = rest.split_first_chunk::<HEAD_BYTES>() {
            let size = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            frames.push((head[3], head[4], size));
            joined.extend_from_slice(&behind[..size]);
            rest = &behind[size..];
        }
        assert_eq!(frames, expected);
        assert_eq!(joined, block);
    }

    #[test]
    fn blocks_become_frames() {
        check_block(0, &[(HEADERS, 5, 0)]);
        check_block(16384, &[(HEADERS, 5, 16384)]);
        check_block(16385, &[(HEADERS, 1, 16384), (CONTINUATION, 4, 1)]);
        check_block(
            40000,
            &[
                (HEADERS, 1, 16384),
                (CONTINUATION, 0, 16384),
                (CONTINUATION, 4, 7232),
            ],
        );
    }
}
