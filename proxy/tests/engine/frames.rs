//! HTTP/2 frame by frame: a peer that says exactly what a test wants, right or wrong, and shows what it hears.

use std::net::SocketAddr;

use meshgate_codec::http1::HeadLimits;
use meshgate_codec::http2::{Decoder, decode_response};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::kit::soon;

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PUSH_PROMISE: u8 = 5;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

/// Flags.
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const ACK: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
pub(crate) const WEIGHTED: u8 = 0x20;
/// A head without a body.
pub(crate) const WHOLE: u8 = END_STREAM | END_HEADERS;

/// Codes.
pub(crate) const PROTOCOL_ERROR: u32 = 1;
pub(crate) const FLOW_CONTROL_ERROR: u32 = 3;
pub(crate) const STREAM_CLOSED: u32 = 5;
pub(crate) const REFUSED_STREAM: u32 = 7;
pub(crate) const CANCEL: u32 = 8;
pub(crate) const CALM: u32 = 11;

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut out = length[1..].to_vec();
    out.extend([kind, flags]);
    out.extend(stream.to_be_bytes());
    out.extend_from_slice(payload);
    out
}

pub(crate) fn reset(stream: u32, code: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &code.to_be_bytes())
}

pub(crate) fn window(stream: u32, bytes: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &bytes.to_be_bytes())
}

pub(crate) fn settings(settings: &[(u16, u32)]) -> Vec<u8> {
    let mut payload = Vec::new();
    for (id, value) in settings {
        payload.extend(id.to_be_bytes());
        payload.extend(value.to_be_bytes());
    }
    frame(SETTINGS, 0, 0, &payload)
}

pub(crate) fn go_away(last: u32, code: u32) -> Vec<u8> {
    frame(
        GOAWAY,
        0,
        0,
        &[last.to_be_bytes(), code.to_be_bytes()].concat(),
    )
}

/// A header block of literals, `name=value|…`, that changes no table.
pub(crate) fn block(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for line in text.split('|').filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once('=').unwrap();
        out.push(0);
        for text in [name, value] {
            if text.len() < 127 {
                out.push(text.len() as u8);
            } else {
                let mut left = text.len() - 127;
                out.push(127);
                while left >= 128 {
                    out.push(left as u8 | 0x80);
                    left >>= 7;
                }
                out.push(left as u8);
            }
            out.extend_from_slice(text.as_bytes());
        }
    }
    out
}

pub(crate) const GET: &str = ":method=GET|:scheme=http|:path=/|:authority=a.test";
pub(crate) const POST: &str = ":method=POST|:scheme=http|:path=/|:authority=a.test";

pub(crate) fn get(stream: u32) -> Vec<u8> {
    frame(HEADERS, WHOLE, stream, &block(GET))
}

/// A request whose body is still to come.
pub(crate) fn post(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &block(POST))
}

/// What was heard.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Heard {
    /// Status, fields, and whether that is all.
    Head(u32, u16, String, bool),
    Data(u32, Vec<u8>, bool),
    Trailers(u32, String),
    Reset(u32, u32),
    GoAway(u32, u32),
    Settings(Vec<(u16, u32)>),
    Ack,
    Ping([u8; 8]),
    Pong([u8; 8]),
    Window(u32, u32),
    /// A request, of which only the stream matters, and whether that is all.
    Asked(u32, bool),
    Closed,
}

/// One end of a connection.
pub(crate) struct Peer<S = TcpStream> {
    pub(crate) stream: S,
    buffer: Vec<u8>,
    decoder: Decoder,
    is_server: bool,
    headed: std::collections::HashSet<u32>,
}

impl Peer<TcpStream> {
    /// A client that has said its preface and SETTINGS.
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let mut peer = Self::new(TcpStream::connect(address).await.unwrap(), false);
        peer.say(&[PREFACE, &settings(&[])].concat()).await;
        peer
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Peer<S> {
    pub(crate) fn new(stream: S, is_server: bool) -> Self {
        Self {
            stream,
            buffer: Vec::new(),
            decoder: Decoder::new(4096),
            is_server,
            headed: Default::default(),
        }
    }

    /// A server's beginning, after the client's preface.
    pub(crate) async fn serve(stream: S) -> Self {
        let mut peer = Self::new(stream, true);
        let mut preface = [0; 24];
        soon(peer.stream.read_exact(&mut preface)).await.unwrap();
        assert_eq!(preface, PREFACE);
        peer
    }

    pub(crate) async fn say(&mut self, bytes: &[u8]) {
        // Whoever is closed meanwhile does not hear it.
        let _ = soon(self.stream.write_all(bytes)).await;
    }

    /// The next thing of any kind.
    pub(crate) async fn hear(&mut self) -> Heard {
        loop {
            if let Some(heard) = self.take() {
                return heard;
            }
            match soon(self.stream.read_buf(&mut self.buffer)).await {
                Ok(1..) => {}
                Ok(0) | Err(_) => return Heard::Closed,
            }
        }
    }

    /// The next thing that is neither about windows nor settings.
    pub(crate) async fn next(&mut self) -> Heard {
        loop {
            match self.hear().await {
                Heard::Settings(_) | Heard::Ack | Heard::Window(..) => {}
                heard => return heard,
            }
        }
    }

    /// Everything up to the close.
    pub(crate) async fn rest(&mut self) -> Vec<Heard> {
        let mut all = Vec::new();
        loop {
            match self.next().await {
                Heard::Closed => return all,
                heard => all.push(heard),
            }
        }
    }

    /// The whole answer on a stream: status and body. Windows are not given back.
    pub(crate) async fn answer(&mut self, stream: u32) -> (u16, String) {
        let mut status = 0;
        let mut body = Vec::new();
        loop {
            match self.next().await {
                Heard::Head(id, found, _, ends) if id == stream => {
                    status = found;
                    if ends {
                        break;
                    }
                }
                Heard::Data(id, data, ends) if id == stream => {
                    body.extend(data);
                    if ends {
                        break;
                    }
                }
                Heard::Trailers(id, _) if id == stream => break,
                Heard::Reset(id, code) if id == stream => panic!("reset: {code}, {status}"),
                Heard::Closed => panic!("closed"),
                Heard::GoAway(last, code) if code != 0 => panic!("going away: {last} {code}"),
                _ => {}
            }
        }
        (status, String::from_utf8(body).unwrap())
    }

    fn take(&mut self) -> Option<Heard> {
        let head = self.buffer.first_chunk::<9>()?;
        let [a, b, c, kind, flags, d, e, f, g] = *head;
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        let stream = u32::from_be_bytes([d, e, f, g]);
        let payload = self.buffer.get(9..9 + length)?.to_vec();
        self.buffer.drain(..9 + length);
        let number = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().unwrap());
        let ends = flags & END_STREAM != 0;
        Some(match kind {
            DATA => Heard::Data(stream, payload, ends),
            HEADERS if self.is_server => Heard::Asked(stream, ends),
            HEADERS if !self.headed.insert(stream) => {
                let fields = meshgate_codec::http2::decode_trailers(
                    &mut self.decoder,
                    &payload,
                    &HeadLimits::default(),
                );
                Heard::Trailers(stream, fields_of(&fields.unwrap().unwrap()))
            }
            HEADERS => {
                assert_ne!(flags & END_HEADERS, 0);
                let head =
                    decode_response(&mut self.decoder, &payload, &HeadLimits::default()).unwrap();
                let head = head.unwrap();
                if head.status < 200 {
                    self.headed.remove(&stream);
                }
                Heard::Head(stream, head.status, fields_of(&head.fields), ends)
            }
            RST_STREAM => Heard::Reset(stream, number(0)),
            SETTINGS if flags & ACK != 0 => Heard::Ack,
            SETTINGS => Heard::Settings(
                (0..length / 6)
                    .map(|index| {
                        let id = u16::from_be_bytes([payload[6 * index], payload[6 * index + 1]]);
                        (id, number(6 * index + 2))
                    })
                    .collect(),
            ),
            PING if flags & ACK != 0 => Heard::Pong(payload.try_into().unwrap()),
            PING => Heard::Ping(payload.try_into().unwrap()),
            GOAWAY => Heard::GoAway(number(0), number(4)),
            WINDOW_UPDATE => Heard::Window(stream, number(0)),
            other => panic!("a frame of type {other}"),
        })
    }
}

fn fields_of(fields: &meshgate_codec::Fields) -> String {
    let lines = fields.iter().map(|field| {
        let text = String::from_utf8_lossy;
        format!("{}={}", text(field.name), text(field.value))
    });
    lines.collect::<Vec<_>>().join("|")
}
