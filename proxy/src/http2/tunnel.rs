//! A stream as a connection of its own, after both ends agreed on it (CONNECT, RFC 9113 §8.5).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use meshgate_codec::http2::{Code, StreamId};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Client;
use super::link::Link;
use crate::body::Frame;

/// Bytes both ways. Given up when dropped.
#[derive(Debug)]
pub(crate) struct Tunnel {
    link: Link,
    stream: StreamId,
    /// What came and was not read.
    ahead: Bytes,
    /// Whether our end was said.
    shut: bool,
    /// Keeps the connection to an endpoint.
    _client: Option<Client>,
}

impl Tunnel {
    pub(super) fn new(link: Link, stream: StreamId, client: Option<Client>) -> Self {
        Self {
            link,
            stream,
            ahead: Bytes::new(),
            shut: false,
            _client: client,
        }
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        // What was said to its end, both ways, is over already.
        self.link.close(self.stream, Code::CANCEL);
    }
}

fn gone() -> io::Error {
    io::Error::new(
        io::ErrorKind::ConnectionReset,
        "the tunnel's stream is over",
    )
}

impl AsyncRead for Tunnel {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.ahead.is_empty() {
            match ready!(this.link.poll_frame(this.stream, cx)).transpose() {
                Ok(Some(Frame::Data(data))) => this.ahead = data,
                Ok(Some(Frame::Trailers(_))) => {}
                Ok(None) => return Poll::Ready(Ok(())),
                Err(error) => return Poll::Ready(Err(io::Error::other(error))),
            }
        }
        let count = this.ahead.len().min(buf.remaining());
        buf.put_slice(&this.ahead[..count]);
        this.ahead.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let this = self.get_mut();
        let mut state = this.link.lock();
        let Some(room) = ready!(state.poll_room(this.stream, cx)) else {
            return Poll::Ready(Err(gone()));
        };
        let count = room.min(buf.len());
        let state = &mut *state;
        let out = state.wire.front();
        state
            .protocol
            .data(this.stream, count, false, out)
            .map_err(|_| gone())?;
        out.extend_from_slice(&buf[..count]);
        state.driver.wake();
        Poll::Ready(Ok(count))
    }

    /// The connection's task sends what waits.
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if std::mem::replace(&mut this.shut, true) {
            return Poll::Ready(Ok(()));
        }
        let mut state = this.link.lock();
        let state = &mut *state;
        let out = state.wire.front();
        let ended = state.protocol.data(this.stream, 0, true, out);
        state.driver.wake();
        Poll::Ready(ended.map_err(|_| gone()))
    }
}
