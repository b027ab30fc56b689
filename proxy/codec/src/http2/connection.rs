//! One connection's protocol: what frames mean, and which frames say what is to be said (RFC 9113).
//!
//! Bytes in, events out; what is to be sent is written behind what the owner sends anyway. The owner keeps the bodies
//! that came and who waits for what. Nothing here waits, and what a peer can make it keep is bounded.

mod receive;
mod send;
mod stream;

use std::ops::Range;
use std::time::Duration;

use super::calm::Calm;
use super::code::Code;
use super::departed::Departed;
use super::error::{Broken, StreamId};
use super::frame;
use super::head::{BadHead, RequestHead};
use super::hpack::{Decoder, Encoder};
use super::settings::{self, PeerSettings};
use super::streams::Streams;
use super::window::{self, ReceiveWindow, SendWindow};
use crate::fields::Fields;
use crate::head::ResponseHead;
use crate::http1::HeadLimits;
pub use send::{Gone, NoStream};
use stream::Stream;

/// The connection preface of a client (RFC 9113 §3.4).
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The table of a peer's header blocks: RFC 7541's default.
const TABLE_BYTES_MAX: usize = 4096;

/// Which end of the connection this is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// It answers.
    Server,
    /// It asks.
    Client,
}

/// What the peer may do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Config {
    /// Requests at once.
    pub streams_max: u32,
    /// DATA of one stream that nobody has taken yet, in bytes.
    pub stream_window: u32,
    /// The same of all streams; at least 65,535.
    pub connection_window: u32,
    /// Of heads and of trailers.
    pub limits: HeadLimits,
    /// Whether requests may open other protocols (RFC 8441).
    pub extended_connect: bool,
    /// Its streams are those of many who know nothing of each other: how many of them are given up is not its doing.
    pub speaks_for_many: bool,
}

/// What a frame meant.
#[derive(Debug)]
pub enum Event {
    /// A stream was opened. A head that is too large wants an answer that says so.
    Request {
        /// Its number.
        stream: StreamId,
        /// What is asked, or why that is too much.
        head: Result<RequestHead, BadHead>,
        /// No body follows.
        ends: bool,
    },
    /// An answer before the answer.
    Interim {
        /// Of the request.
        stream: StreamId,
        /// 1xx.
        head: ResponseHead,
    },
    /// The answer.
    Response {
        /// Of the request.
        stream: StreamId,
        /// Its head.
        head: ResponseHead,
        /// No body follows.
        ends: bool,
    },
    /// A piece of a body. Every byte of it must be given back by [`Connection::release`].
    Data {
        /// Of which body.
        stream: StreamId,
        /// Where it is in the input.
        data: Range<usize>,
        /// It is the last.
        ends: bool,
    },
    /// The body has ended with these.
    Trailers {
        /// Of which body.
        stream: StreamId,
        /// At most what the limits say.
        fields: Fields,
    },
    /// The stream is over before its end.
    Reset {
        /// Which one.
        stream: StreamId,
        /// Why.
        code: Code,
        /// Otherwise the peer broke the protocol, and was told.
        by_peer: bool,
    },
    /// A request was no request; the peer was told, and there is nothing to do.
    Refused,
    /// There may be more room to send: on one stream, or on all.
    Room(Option<StreamId>),
    /// The peer opens no streams any more, and has not looked at those above `last`.
    GoAway {
        /// The highest that it looked at.
        last: StreamId,
        /// Why it goes.
        code: Code,
    },
    /// The answer to [`Connection::ping`].
    Pong([u8; 8]),
    /// Nothing that anybody must know.
    Nothing,
}

/// How far reading came.
#[derive(Debug)]
#[must_use]
pub enum Received {
    /// More bytes are needed.
    Partial,
    /// A frame was read.
    Frame {
        /// Its bytes.
        consumed: usize,
        /// What it meant.
        event: Event,
    },
}

/// One end of a connection.
#[derive(Debug)]
pub struct Connection {
    role: Role,
    config: Config,
    /// Bytes of the client's preface that came.
    preface: usize,
    /// Frames before the peer's SETTINGS are none.
    heard_settings: bool,
    /// Our SETTINGS that the peer has not acknowledged.
    unacknowledged: u32,
    peer: PeerSettings,
    decoder: Decoder,
    encoder: Encoder,
    block: Option<Block>,
    streams: Streams<Stream>,
    departed: Departed,
    /// The highest stream that the peer opened.
    highest: StreamId,
    /// The next stream that we open.
    next: StreamId,
    /// Streams above are not served any more.
    serves_to: StreamId,
    /// The peer takes no more streams.
    peer_left: bool,
    receive: ReceiveWindow,
    send: SendWindow,
    calm: Calm,
}

/// A header block that has begun and not ended.
#[derive(Debug)]
struct Block {
    stream: StreamId,
    ends: bool,
    own_parent: bool,
    bytes: Vec<u8>,
    frames: u32,
}

/// The highest number of a stream.
const STREAM_MAX: StreamId = 0x7fff_ffff;

impl Connection {
    /// Begins a connection; what must be said first is written.
    pub fn new(role: Role, config: Config, out: &mut Vec<u8>) -> Self {
        let mut announced = vec![
            (settings::INITIAL_WINDOW_SIZE, config.stream_window),
            (
                settings::MAX_HEADER_LIST_SIZE,
                u32::try_from(config.limits.head_bytes_max).unwrap_or(u32::MAX),
            ),
        ];
        match role {
            Role::Server => {
                announced.push((settings::MAX_CONCURRENT_STREAMS, config.streams_max));
                if config.extended_connect {
                    announced.push((settings::ENABLE_CONNECT_PROTOCOL, 1));
                }
            }
            Role::Client => {
                out.extend_from_slice(PREFACE);
                announced.push((settings::ENABLE_PUSH, 0));
            }
        }
        frame::write_settings(&announced, out);
        let connection_window = config.connection_window.max(window::DEFAULT);
        if connection_window > window::DEFAULT {
            frame::write_window_update(0, connection_window - window::DEFAULT, out);
        }
        Self {
            role,
            config,
            preface: match role {
                Role::Server => 0,
                Role::Client => PREFACE.len(),
            },
            heard_settings: false,
            unacknowledged: 1,
            peer: PeerSettings::default(),
            decoder: Decoder::new(TABLE_BYTES_MAX),
            encoder: Encoder::new(),
            block: None,
            streams: Streams::default(),
            departed: Departed::default(),
            highest: 0,
            next: 1,
            serves_to: STREAM_MAX,
            peer_left: false,
            receive: ReceiveWindow::new(connection_window),
            send: SendWindow::new(window::DEFAULT),
            calm: Calm::default(),
        }
    }

    /// Reads a frame from the input. `now` is what has passed since anything that stays the same. After an error the
    /// peer was told why; the connection is to be closed once that is sent.
    pub fn receive(
        &mut self,
        input: &[u8],
        now: Duration,
        out: &mut Vec<u8>,
    ) -> Result<Received, Broken> {
        let received = self.read(input, now, out);
        if let Err(broken) = &received {
            frame::write_go_away(self.highest, broken.code, broken.why, out);
        }
        received
    }

    /// Whether the peer owes the rest of a head, which nothing may come between.
    pub fn awaits_head(&self) -> bool {
        self.block.is_some()
    }

    /// Whether the peer has said what it must say first.
    pub fn is_greeted(&self) -> bool {
        self.heard_settings
    }

    /// Whether the peer has announced that requests may open other protocols (RFC 8441 §3).
    pub fn opens_protocols(&self) -> bool {
        self.peer.extended_connect
    }

    /// How many streams are open.
    pub fn open(&self) -> usize {
        self.streams.len()
    }

    /// Gives back the memory that only work needs, when the connection falls idle.
    pub fn give_back(&mut self) {
        self.decoder.give_back();
        self.encoder.give_back();
        self.streams.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests;
