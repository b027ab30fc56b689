//! One byte stream type for everything a connection can be made of.

use std::io::{self, Write as _};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::corked::Corked;
use crate::http2::Tunnel;

/// A connection, after bytes that were read from it ahead of time.
#[derive(Debug)]
pub(crate) struct Io {
    ahead: Bytes,
    stream: Stream,
}

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    ServerTls(Box<tokio_rustls::server::TlsStream<Corked>>),
    ClientTls(Box<tokio_rustls::client::TlsStream<TcpStream>>),
    /// A stream within an HTTP/2 connection.
    Tunnel(Box<Tunnel>),
    /// Nothing: it is over.
    Closed(tokio::io::Empty),
}

impl Io {
    /// No connection any more.
    pub(crate) fn closed() -> Self {
        Stream::Closed(tokio::io::empty()).into()
    }

    /// Puts bytes back that were read to find out what this is.
    pub(crate) fn with_ahead(mut self, ahead: Bytes) -> Self {
        debug_assert!(
            self.ahead.is_empty(),
            "bytes are put back once they were taken"
        );
        self.ahead = ahead;
        self
    }

    /// The peer will see a reset instead of an end. TLS says by itself that the end is missing.
    pub(crate) fn reset_on_close(&self) {
        if let Stream::Tcp(stream) = &self.stream {
            // Failing leaves the ordinary end.
            let _ = stream.set_zero_linger();
        }
    }

    /// Says that nothing more will be written, behind what is written already. Without TLS only a shutdown says that.
    pub(crate) fn say_goodbye(&mut self) {
        match &mut self.stream {
            Stream::ServerTls(stream) => stream.get_mut().1.send_close_notify(),
            Stream::ClientTls(stream) => stream.get_mut().1.send_close_notify(),
            Stream::Tcp(_) | Stream::Tunnel(_) | Stream::Closed(_) => {}
        }
    }

    /// What is written from now on goes out with the end, as far as it fits into one packet. To be shut down at once.
    pub(crate) fn hold_for_end(&self) {
        let stream = match &self.stream {
            Stream::Tcp(stream) => stream,
            Stream::ServerTls(stream) => stream.get_ref().0.tcp(),
            Stream::ClientTls(_) | Stream::Tunnel(_) | Stream::Closed(_) => return,
        };
        // Failing costs a packet.
        let _ = SockRef::from(stream).set_tcp_cork(true);
    }

    /// Whether there is something to read, the end included. A byte of it may be lost. Only known of connections that we
    /// made, and not of tunnels.
    pub(crate) fn has_input(&mut self) -> bool {
        let has_more = match &mut self.stream {
            Stream::Tcp(stream) => !would_block(&stream.try_read(&mut [0])),
            Stream::ClientTls(stream) => {
                let (stream, session) = stream.get_mut();
                session_has_input(session, stream)
            }
            Stream::ServerTls(_) | Stream::Tunnel(_) | Stream::Closed(_) => true,
        };
        !self.ahead.is_empty() || has_more
    }
}

/// How often a connection that waits is read from to see whether it is quiet. The tickets that servers send after an answer
/// are one read, two at most; one that says more than this is not waiting, and would keep us reading as long as it likes.
const QUIET_READS_MAX: usize = 8;

/// What TLS says for itself, such as a ticket for the next session, is taken and is no input.
fn session_has_input(session: &mut rustls::ClientConnection, stream: &TcpStream) -> bool {
    for _ in 0..QUIET_READS_MAX {
        match session.process_new_packets() {
            Ok(state) if state.plaintext_bytes_to_read() == 0 && !state.peer_has_closed() => {}
            _ => return true,
        }
        let read = session.read_tls(&mut Ready(stream));
        if !matches!(read, Ok(1..)) {
            return !would_block(&read);
        }
    }
    true
}

fn would_block(read: &io::Result<usize>) -> bool {
    matches!(read, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

/// Reads what is there, and does not wait.
struct Ready<'a>(&'a TcpStream);

impl io::Read for Ready<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buf)
    }
}

impl From<Stream> for Io {
    fn from(stream: Stream) -> Self {
        Self {
            ahead: Bytes::new(),
            stream,
        }
    }
}

impl From<Tunnel> for Io {
    fn from(tunnel: Tunnel) -> Self {
        Stream::Tunnel(Box::new(tunnel)).into()
    }
}

impl From<TcpStream> for Io {
    fn from(stream: TcpStream) -> Self {
        Stream::Tcp(stream).into()
    }
}

impl From<tokio_rustls::server::TlsStream<Corked>> for Io {
    /// The handshake has ended.
    fn from(mut stream: tokio_rustls::server::TlsStream<Corked>) -> Self {
        stream.get_mut().0.uncork();
        Stream::ServerTls(Box::new(stream)).into()
    }
}

impl From<tokio_rustls::client::TlsStream<TcpStream>> for Io {
    fn from(stream: tokio_rustls::client::TlsStream<TcpStream>) -> Self {
        Stream::ClientTls(Box::new(stream)).into()
    }
}

/// Calls the same poll function of whatever is inside.
macro_rules! each {
    ($self:ident, $stream:ident => $call:expr) => {
        match &mut $self.get_mut().stream {
            Stream::Tcp(inner) => {
                let $stream = Pin::new(inner);
                $call
            }
            Stream::ServerTls(inner) => {
                let $stream = Pin::new(&mut **inner);
                $call
            }
            Stream::ClientTls(inner) => {
                let $stream = Pin::new(&mut **inner);
                $call
            }
            Stream::Tunnel(inner) => {
                let $stream = Pin::new(&mut **inner);
                $call
            }
            Stream::Closed(inner) => {
                let $stream = Pin::new(inner);
                $call
            }
        }
    };
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.ahead.is_empty() {
            let count = self.ahead.len().min(buf.remaining());
            buf.put_slice(&self.ahead[..count]);
            self.ahead.advance(count);
            if self.ahead.is_empty() {
                // Gives the memory back.
                self.ahead = Bytes::new();
            }
            return Poll::Ready(Ok(()));
        }
        each!(self, stream => stream.poll_read(cx, buf))
    }
}

impl Io {
    /// TLS keeps what is written until it is flushed, as far as it has room; what it has is sent when it has none. `None`:
    /// this is no TLS.
    fn poll_encrypt(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Option<Poll<io::Result<usize>>> {
        let encrypted = self.session()?.write_vectored(bufs);
        if !matches!(encrypted, Ok(0)) {
            return Some(Poll::Ready(encrypted));
        }
        Some(match self.as_mut().poll_flush(cx) {
            Poll::Ready(Ok(())) => Poll::Ready(self.session()?.write_vectored(bufs)),
            unsent => unsent.map_ok(|()| 0),
        })
    }

    /// Where TLS takes what is to be sent.
    fn session(&mut self) -> Option<rustls::Writer<'_>> {
        match &mut self.stream {
            Stream::ServerTls(stream) => Some(stream.get_mut().1.writer()),
            Stream::ClientTls(stream) => Some(stream.get_mut().1.writer()),
            Stream::Tcp(_) | Stream::Tunnel(_) | Stream::Closed(_) => None,
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.as_mut().poll_encrypt(cx, &[io::IoSlice::new(buf)]) {
            Some(encrypted) => encrypted,
            None => each!(self, stream => stream.poll_write(cx, buf)),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => stream.poll_shutdown(cx))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.as_mut().poll_encrypt(cx, bufs) {
            Some(encrypted) => encrypted,
            None => each!(self, stream => stream.poll_write_vectored(cx, bufs)),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Tcp(stream) => stream.is_write_vectored(),
            Stream::ServerTls(stream) => stream.is_write_vectored(),
            Stream::ClientTls(stream) => stream.is_write_vectored(),
            Stream::Tunnel(_) | Stream::Closed(_) => false,
        }
    }
}

#[cfg(test)]
mod tests;
