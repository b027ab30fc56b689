//! What is to be said, as frames.

use super::super::code::Code;
use super::super::departed::How;
use super::super::error::StreamId;
use super::super::frame::{self, HEAD_BYTES, PAYLOAD_BYTES_MAX};
use super::super::head::{RequestLine, encode_request, encode_response, encode_trailers};
use super::{Connection, Role, STREAM_MAX};
use crate::fields::{Field, Fields, Known};
use crate::method::Method;

/// The stream is over: nothing can be said on it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the stream is over")]
pub struct Gone;

/// The peer takes no further stream at this moment, or on this connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the peer takes no further stream")]
pub struct NoStream;

impl Connection {
    /// Whether another request may be sent now.
    pub fn can_open(&self) -> bool {
        !self.is_used_up() && self.streams.len() < self.peer.streams_max as usize
    }

    /// Whether we opened it, or will.
    pub fn is_ours(&self, stream: StreamId) -> bool {
        self.role == Role::Client && stream % 2 == 1
    }

    /// Whether no request may be sent any more.
    pub fn is_used_up(&self) -> bool {
        self.peer_left || self.next > STREAM_MAX
    }

    /// Opens a stream with a request; `more` are fields besides the message's own. `ends`: no body follows.
    pub fn request(
        &mut self,
        line: RequestLine<'_>,
        fields: &Fields,
        more: &[(Known, &[u8])],
        ends: bool,
        out: &mut Vec<u8>,
    ) -> Result<StreamId, NoStream> {
        if !self.can_open() {
            return Err(NoStream);
        }
        let id = self.next;
        self.next += 2;
        let mut open = self.stream(None);
        open.answered = true;
        open.sending = !ends;
        open.bodyless = *line.method == Method::Head;
        open.opens = *line.method == Method::Connect;
        self.streams.insert(id, open);
        self.calm.asked();
        let start = begin_block(out);
        encode_request(&mut self.encoder, line, fields, out);
        for (known, value) in more {
            let field = Field {
                name: known.as_str().as_bytes(),
                known: Some(*known),
                value,
                never_indexed: false,
            };
            self.encoder.field(field, out);
        }
        frame::finish_block(id, ends, start, out);
        Ok(id)
    }

    /// An answer before the answer (1xx).
    pub fn inform(
        &mut self,
        stream: StreamId,
        status: u16,
        fields: &Fields,
        out: &mut Vec<u8>,
    ) -> Result<(), Gone> {
        match self.streams.get(&stream) {
            Some(open) if open.sending && !open.answered => {}
            _ => return Err(Gone),
        }
        let start = begin_block(out);
        encode_response(&mut self.encoder, status, fields, out);
        frame::finish_block(stream, false, start, out);
        Ok(())
    }

    /// The head of the answer. `ends`: no body follows.
    pub fn respond(
        &mut self,
        stream: StreamId,
        status: u16,
        fields: &Fields,
        ends: bool,
        out: &mut Vec<u8>,
    ) -> Result<(), Gone> {
        let open = self.streams.get_mut(&stream);
        let open = open.filter(|open| open.sending).ok_or(Gone)?;
        open.answered = true;
        open.sending = !ends;
        let start = begin_block(out);
        encode_response(&mut self.encoder, status, fields, out);
        frame::finish_block(stream, ends, start, out);
        self.remove_if_over(stream);
        Ok(())
    }

    /// How many bytes of DATA may be sent at once, now; `None` when the stream is over.
    pub fn room(&self, stream: StreamId) -> Option<usize> {
        let open = self.streams.get(&stream).filter(|open| open.sending)?;
        let room = open.send.room().min(self.send.room());
        Some(room.min(PAYLOAD_BYTES_MAX))
    }

    /// The head of a DATA frame whose payload, of `bytes` at most what there is room for, the owner sends behind it.
    pub fn data(
        &mut self,
        stream: StreamId,
        bytes: usize,
        ends: bool,
        out: &mut Vec<u8>,
    ) -> Result<(), Gone> {
        let open = self.streams.get_mut(&stream);
        let open = open.filter(|open| open.sending).ok_or(Gone)?;
        open.send.spend(bytes);
        open.sending = !ends;
        self.send.spend(bytes);
        self.calm.sent_data();
        frame::write_data_head(stream, bytes, ends, out);
        self.remove_if_over(stream);
        Ok(())
    }

    /// Ends a body with trailers.
    pub fn trailers(
        &mut self,
        stream: StreamId,
        fields: &Fields,
        out: &mut Vec<u8>,
    ) -> Result<(), Gone> {
        let open = self.streams.get_mut(&stream);
        let open = open.filter(|open| open.sending).ok_or(Gone)?;
        open.sending = false;
        let start = begin_block(out);
        encode_trailers(&mut self.encoder, fields, out);
        frame::finish_block(stream, true, start, out);
        self.remove_if_over(stream);
        Ok(())
    }

    /// Gives a stream up, if it is open.
    pub fn reset(&mut self, stream: StreamId, code: Code, out: &mut Vec<u8>) {
        if self.streams.remove(&stream).is_some() {
            self.departed.note(stream, How::ResetByUs);
            frame::write_reset(stream, code, out);
        }
    }

    /// Bytes of DATA were taken by their reader, or thrown away; the peer may send as many more. Also for streams that
    /// are over.
    pub fn release(&mut self, stream: StreamId, bytes: u32, out: &mut Vec<u8>) {
        if bytes == 0 {
            return;
        }
        self.release_connection(bytes, out);
        if let Some(open) = self.streams.get_mut(&stream)
            && open.receiving
            && let Some(told) = open.receive.release(bytes)
        {
            frame::write_window_update(stream, told, out);
        }
    }

    pub(super) fn release_connection(&mut self, bytes: u32, out: &mut Vec<u8>) {
        if let Some(told) = self.receive.release(bytes) {
            frame::write_window_update(0, told, out);
        }
    }

    /// Asks for a sign of life.
    pub fn ping(&mut self, opaque: [u8; 8], out: &mut Vec<u8>) {
        frame::write_ping(opaque, out);
    }

    /// Asks the peer to open no more streams; those on their way are served still (RFC 9113 §6.8).
    pub fn ask_to_leave(&mut self, out: &mut Vec<u8>) {
        frame::write_go_away(STREAM_MAX, Code::NO_ERROR, "", out);
    }

    /// Serves what was begun and nothing else.
    pub fn leave(&mut self, out: &mut Vec<u8>) {
        let last = self.serve_to_highest();
        frame::write_go_away(last, Code::NO_ERROR, "", out);
    }

    /// Ends the connection for a reason of the owner's.
    pub fn break_off(&mut self, code: Code, why: &'static str, out: &mut Vec<u8>) {
        frame::write_go_away(self.highest, code, why, out);
    }
}

/// Room for the head of the first frame.
fn begin_block(out: &mut Vec<u8>) -> usize {
    let start = out.len();
    out.extend_from_slice(&[0; HEAD_BYTES]);
    start
}
