//! What frames mean.

use std::ops::Range;
use std::time::Duration;

use super::super::code::Code;
use super::super::departed::{How, Known};
use super::super::error::{Broken, StreamId};
use super::super::frame::{self, Frame, PAYLOAD_BYTES_MAX};
use super::super::head::{BadHead, RequestHead, decode_request, decode_response, decode_trailers};
use super::super::window::{ReceiveWindow, SendWindow};
use super::stream::Stream;
use super::{Block, Connection, Event, PREFACE, Received, Role, STREAM_MAX};

/// A header block comes in so many frames at most.
const BLOCK_FRAMES_MAX: u32 = 64;
/// A block of more than so many heads is not read to its end. What is only somewhat too large gets its answer.
const BLOCK_HEADS_MAX: usize = 2;

/// What ends one stream and lets the others live (RFC 9113 §5.4.2).
struct StreamError {
    stream: StreamId,
    code: Code,
}

/// What a frame for a stream comes to, or what is wrong with the connection.
type Outcome = Result<Result<Event, StreamError>, Broken>;

fn stream_error(stream: StreamId, code: Code) -> Outcome {
    Ok(Err(StreamError { stream, code }))
}

impl Connection {
    pub(super) fn read(
        &mut self,
        input: &[u8],
        now: Duration,
        out: &mut Vec<u8>,
    ) -> Result<Received, Broken> {
        if self.preface < PREFACE.len() {
            return self.read_preface(input);
        }
        let Some((frame, consumed)) = frame::read(input, PAYLOAD_BYTES_MAX)? else {
            return Ok(Received::Partial);
        };
        if !self.heard_settings && !matches!(frame, Frame::Settings(_)) {
            return Err(Broken::protocol("the first frame is not SETTINGS"));
        }
        let continues = matches!(frame, Frame::Continuation { .. });
        if self.block.is_some() != continues {
            return Err(Broken::protocol(
                "a header block is interrupted, or has no beginning",
            ));
        }
        let event = match self.take(frame, input, now, out)? {
            Ok(event) => event,
            Err(error) => self.end_stream_by_error(error, now, out)?,
        };
        Ok(Received::Frame { consumed, event })
    }

    fn read_preface(&mut self, input: &[u8]) -> Result<Received, Broken> {
        let expected = PREFACE.get(self.preface..).unwrap_or_default();
        let consumed = expected.len().min(input.len());
        if input.get(..consumed) != expected.get(..consumed) {
            return Err(Broken::protocol("not an HTTP/2 client"));
        }
        if consumed == 0 {
            return Ok(Received::Partial);
        }
        self.preface += consumed;
        let event = Event::Nothing;
        Ok(Received::Frame { consumed, event })
    }

    fn take(&mut self, frame: Frame, input: &[u8], now: Duration, out: &mut Vec<u8>) -> Outcome {
        match frame {
            Frame::Data {
                stream,
                data,
                flow,
                ends,
            } => self.take_data(stream, data, flow, ends, now, out),
            Frame::Headers {
                stream,
                block,
                ends,
                complete,
                own_parent,
            } => {
                let block = input.get(block).unwrap_or_default();
                if complete {
                    return self.take_block(stream, block, ends, own_parent, now);
                }
                self.block = Some(Block {
                    stream,
                    ends,
                    own_parent,
                    bytes: block.to_vec(),
                    frames: 1,
                });
                Ok(Ok(Event::Nothing))
            }
            Frame::Continuation {
                stream,
                block,
                complete,
            } => self.continue_block(stream, input.get(block).unwrap_or_default(), complete, now),
            Frame::Priority { stream, bad } => {
                self.calm.idle_frame(now)?;
                match bad {
                    Some(code) => stream_error(stream, code),
                    None => Ok(Ok(Event::Nothing)),
                }
            }
            Frame::Reset { stream, code } => self.take_reset(stream, code, now),
            Frame::Settings(payload) => {
                self.take_settings(input.get(payload).unwrap_or_default(), now, out)
            }
            Frame::SettingsAck => {
                match self.unacknowledged.checked_sub(1) {
                    Some(left) => self.unacknowledged = left,
                    None => self.calm.idle_frame(now)?,
                }
                Ok(Ok(Event::Nothing))
            }
            Frame::Ping(opaque) => {
                self.calm.idle_frame(now)?;
                frame::write_pong(opaque, out);
                Ok(Ok(Event::Nothing))
            }
            Frame::Pong(opaque) => {
                self.calm.idle_frame(now)?;
                Ok(Ok(Event::Pong(opaque)))
            }
            Frame::GoAway { last, code } => {
                self.calm.idle_frame(now)?;
                self.peer_left = true;
                Ok(Ok(Event::GoAway { last, code }))
            }
            Frame::WindowUpdate { stream, bytes } => self.take_window_update(stream, bytes, now),
            Frame::Unknown => {
                self.calm.idle_frame(now)?;
                Ok(Ok(Event::Nothing))
            }
        }
    }

    /// Resets the stream, as often as the peer's patience account allows.
    fn end_stream_by_error(
        &mut self,
        error: StreamError,
        now: Duration,
        out: &mut Vec<u8>,
    ) -> Result<Event, Broken> {
        let StreamError { stream, code } = error;
        self.calm.our_reset(now)?;
        frame::write_reset(stream, code, out);
        Ok(match self.streams.remove(&stream) {
            Some(_) => {
                self.departed.note(stream, How::ResetByUs);
                let by_peer = false;
                Event::Reset {
                    stream,
                    code,
                    by_peer,
                }
            }
            None => Event::Refused,
        })
    }

    /// Streams that neither end has opened yet.
    fn is_idle(&self, stream: StreamId) -> bool {
        match (self.role, stream % 2) {
            (Role::Server, 1) => stream > self.highest,
            (Role::Client, 1) => stream >= self.next,
            // Servers open none.
            _ => true,
        }
    }

    /// A frame that belongs to a message came for a stream that is not open.
    fn for_absent(&mut self, stream: StreamId, now: Duration) -> Outcome {
        if self.is_idle(stream) {
            return Err(Broken::protocol("a frame for a stream that was not opened"));
        }
        match self.departed.find(stream) {
            Known::Ended(How::Complete) => Err(Broken::new(
                Code::STREAM_CLOSED,
                "a frame for a stream that has ended",
            )),
            Known::Ended(How::ResetByPeer) => stream_error(stream, Code::STREAM_CLOSED),
            // It was on its way when we gave the stream up.
            Known::Ended(How::ResetByUs) => Ok(Ok(Event::Nothing)),
            Known::Nothing => {
                self.calm.idle_frame(now)?;
                Ok(Ok(Event::Nothing))
            }
            Known::NeverOpened => Err(Broken::protocol("a stream's number goes back")),
        }
    }

    fn take_data(
        &mut self,
        stream: StreamId,
        data: Range<usize>,
        flow: u32,
        ends: bool,
        now: Duration,
        out: &mut Vec<u8>,
    ) -> Outcome {
        if !self.receive.spend(flow) {
            return Err(Broken::flow(
                "more DATA than the connection's window allows",
            ));
        }
        let bytes = data.len();
        if bytes == 0 && !ends {
            self.calm.idle_frame(now)?;
        }
        let Some(open) = self.streams.get_mut(&stream) else {
            self.release_connection(flow, out);
            return self.for_absent(stream, now);
        };
        let wrong = if !open.receiving {
            Some(Code::STREAM_CLOSED)
        } else if !open.headed {
            Some(Code::PROTOCOL_ERROR)
        } else if !open.receive.spend(flow) {
            Some(Code::FLOW_CONTROL_ERROR)
        } else {
            let taken = open.take_data(bytes);
            let taken = match ends {
                true => taken.and_then(|()| open.end_receiving()),
                false => taken,
            };
            taken.is_err().then_some(Code::PROTOCOL_ERROR)
        };
        if let Some(code) = wrong {
            self.release_connection(flow, out);
            return stream_error(stream, code);
        }
        self.remove_if_over(stream);
        // Nobody reads the padding.
        let padding = flow.saturating_sub(u32::try_from(bytes).unwrap_or(flow));
        self.release(stream, padding, out);
        Ok(Ok(Event::Data { stream, data, ends }))
    }

    fn continue_block(
        &mut self,
        stream: StreamId,
        piece: &[u8],
        complete: bool,
        now: Duration,
    ) -> Outcome {
        let limit = BLOCK_HEADS_MAX * self.config.limits.head_bytes_max;
        let Some(mut block) = self.block.take_if(|block| block.stream == stream) else {
            return Err(Broken::protocol("a header block is interrupted"));
        };
        block.bytes.extend_from_slice(piece);
        block.frames += 1;
        if block.bytes.len() > limit || block.frames > BLOCK_FRAMES_MAX {
            return Err(Broken::flood("a header block does not end"));
        }
        if complete {
            return self.take_block(stream, &block.bytes, block.ends, block.own_parent, now);
        }
        self.block = Some(block);
        Ok(Ok(Event::Nothing))
    }

    /// A whole header block: it must be decoded whatever it is for.
    fn take_block(
        &mut self,
        stream: StreamId,
        block: &[u8],
        ends: bool,
        own_parent: bool,
        now: Duration,
    ) -> Outcome {
        let outcome = match self.streams.get(&stream) {
            Some(open) if self.role == Role::Client && !open.headed => {
                self.take_response(stream, block, ends)
            }
            Some(_) => self.take_trailers(stream, block, ends),
            None if self.role == Role::Server && stream % 2 == 1 && stream > self.highest => {
                self.take_request(stream, block, ends, now)
            }
            None => {
                let _ = decode_trailers(&mut self.decoder, block, &self.config.limits)
                    .map_err(bad_block)?;
                self.for_absent(stream, now)
            }
        };
        match outcome {
            // Before the stream is over: its owner must hear of the end.
            Ok(Ok(_)) if own_parent => stream_error(stream, Code::PROTOCOL_ERROR),
            Ok(Ok(event)) => {
                self.remove_if_over(stream);
                Ok(Ok(event))
            }
            wrong => wrong,
        }
    }

    fn take_request(
        &mut self,
        stream: StreamId,
        block: &[u8],
        ends: bool,
        now: Duration,
    ) -> Outcome {
        self.highest = stream;
        self.calm.opened(now);
        let head = decode_request(&mut self.decoder, block, &self.config.limits);
        let head = head.map_err(bad_block)?;
        if stream > self.serves_to {
            self.departed.note(stream, How::ResetByUs);
            return Ok(Ok(Event::Nothing));
        }
        // A protocol may be asked for only where that was announced (RFC 8441 §4).
        let unasked = |head: &RequestHead| head.protocol.is_some() && !self.config.extended_connect;
        if matches!(head, Err(BadHead::Malformed(_))) || head.as_ref().is_ok_and(unasked) {
            self.departed.note(stream, How::ResetByUs);
            return stream_error(stream, Code::PROTOCOL_ERROR);
        }
        if self.streams.len() >= self.config.streams_max as usize {
            self.departed.note(stream, How::ResetByUs);
            return stream_error(stream, Code::REFUSED_STREAM);
        }
        let length = |head: &RequestHead| head.fields.content_length();
        let Ok(left) = head.as_ref().map_or(Ok(None), length) else {
            self.departed.note(stream, How::ResetByUs);
            return stream_error(stream, Code::PROTOCOL_ERROR);
        };
        let mut open = self.stream(left);
        open.headed = true;
        if ends && open.end_receiving().is_err() {
            self.departed.note(stream, How::ResetByUs);
            return stream_error(stream, Code::PROTOCOL_ERROR);
        }
        self.streams.insert(stream, open);
        Ok(Ok(Event::Request { stream, head, ends }))
    }

    /// A stream that was just opened, by either end.
    pub(super) fn stream(&self, left: Option<u64>) -> Stream {
        Stream {
            send: SendWindow::new(self.peer.stream_window),
            receive: ReceiveWindow::new(self.config.stream_window),
            sending: true,
            receiving: true,
            headed: false,
            answered: false,
            left,
            bodyless: false,
            opens: false,
        }
    }

    fn take_response(&mut self, stream: StreamId, block: &[u8], ends: bool) -> Outcome {
        let head = decode_response(&mut self.decoder, block, &self.config.limits);
        let Ok(head) = head.map_err(bad_block)? else {
            return stream_error(stream, Code::PROTOCOL_ERROR);
        };
        let Some(open) = self.streams.get_mut(&stream) else {
            return stream_error(stream, Code::INTERNAL_ERROR);
        };
        if head.is_interim() {
            return match ends {
                true => stream_error(stream, Code::PROTOCOL_ERROR),
                false => Ok(Ok(Event::Interim { stream, head })),
            };
        }
        open.headed = true;
        open.left = match head.status {
            200..300 if open.opens => None,
            204 | 304 => Some(0),
            _ if open.bodyless => Some(0),
            _ => match head.fields.content_length() {
                Ok(length) => length,
                Err(_) => return stream_error(stream, Code::PROTOCOL_ERROR),
            },
        };
        if ends && open.end_receiving().is_err() {
            return stream_error(stream, Code::PROTOCOL_ERROR);
        }
        Ok(Ok(Event::Response { stream, head, ends }))
    }

    fn take_trailers(&mut self, stream: StreamId, block: &[u8], ends: bool) -> Outcome {
        let fields = decode_trailers(&mut self.decoder, block, &self.config.limits);
        let fields = fields.map_err(bad_block)?;
        let Some(open) = self.streams.get_mut(&stream) else {
            return stream_error(stream, Code::INTERNAL_ERROR);
        };
        if !open.receiving {
            return stream_error(stream, Code::STREAM_CLOSED);
        }
        match fields {
            Ok(fields) if ends && open.end_receiving().is_ok() => {
                Ok(Ok(Event::Trailers { stream, fields }))
            }
            _ => stream_error(stream, Code::PROTOCOL_ERROR),
        }
    }

    fn take_reset(&mut self, stream: StreamId, code: Code, now: Duration) -> Outcome {
        let Some(open) = self.streams.remove(&stream) else {
            if self.is_idle(stream) {
                return Err(Broken::protocol("a reset of a stream that was not opened"));
            }
            self.calm.idle_frame(now)?;
            // Ours crossed it on the way: what the peer said before that is here now.
            self.departed.note_reset(stream);
            return Ok(Ok(Event::Nothing));
        };
        self.departed.note(stream, How::ResetByPeer);
        if self.role == Role::Server && open.sending && !self.config.speaks_for_many {
            self.calm.given_up()?;
        }
        let by_peer = true;
        Ok(Ok(Event::Reset {
            stream,
            code,
            by_peer,
        }))
    }

    fn take_settings(&mut self, payload: &[u8], now: Duration, out: &mut Vec<u8>) -> Outcome {
        if std::mem::replace(&mut self.heard_settings, true) {
            self.calm.idle_frame(now)?;
        }
        let before = self.peer;
        self.peer.take(payload, self.role == Role::Client)?;
        let wider = i64::from(self.peer.stream_window) - i64::from(before.stream_window);
        if wider != 0 {
            for open in self.streams.values_mut() {
                let widened = open.send.widen(wider);
                widened.map_err(|_| Broken::flow("a window that is too large"))?;
            }
        }
        if self.peer.table_bytes_max != before.table_bytes_max {
            self.encoder.limit_table(self.peer.table_bytes_max as usize);
        }
        frame::write_settings_ack(out);
        Ok(Ok(Event::Room(None)))
    }

    fn take_window_update(&mut self, stream: StreamId, bytes: u32, now: Duration) -> Outcome {
        self.calm.idle_frame(now)?;
        if stream == 0 {
            if bytes == 0 {
                return Err(Broken::protocol("a window update of nothing"));
            }
            let widened = self.send.widen(i64::from(bytes));
            widened.map_err(|_| Broken::flow("a window that is too large"))?;
            return Ok(Ok(Event::Room(None)));
        }
        let Some(open) = self.streams.get_mut(&stream) else {
            return match self.is_idle(stream) {
                true => Err(Broken::protocol("a window of a stream that was not opened")),
                false => Ok(Ok(Event::Nothing)),
            };
        };
        match bytes {
            0 => stream_error(stream, Code::PROTOCOL_ERROR),
            _ if open.send.widen(i64::from(bytes)).is_err() => {
                stream_error(stream, Code::FLOW_CONTROL_ERROR)
            }
            _ => Ok(Ok(Event::Room(Some(stream)))),
        }
    }

    pub(super) fn remove_if_over(&mut self, stream: StreamId) {
        if self.streams.get(&stream).is_some_and(Stream::is_over) {
            self.streams.remove(&stream);
            self.departed.note(stream, How::Complete);
        }
    }

    /// Serves what was begun and nothing else.
    pub(super) fn serve_to_highest(&mut self) -> StreamId {
        if self.serves_to == STREAM_MAX {
            self.serves_to = self.highest;
        }
        self.serves_to
    }
}

fn bad_block(_: super::super::hpack::BadBlock) -> Broken {
    Broken::new(
        Code::COMPRESSION_ERROR,
        "a header block that cannot be decoded",
    )
}
