//! A TCP connection below TLS that sends what nobody waits for together with what follows.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// During a handshake, what is written waits until the peer is waited for. What waits when the handshake has ended is the
/// server's session ticket, mostly: it goes with the first answer, not in a packet of its own in front of it. Whoever waits
/// for a request before that flushes first; a read does not, as a client is watched while its answer is made, too.
#[derive(Debug)]
pub(crate) struct Corked {
    stream: TcpStream,
    held: Vec<u8>,
    is_shaking_hands: bool,
}

/// More than this is sent at once; a flight of a handshake with a long chain has it.
const HELD_BYTES_MAX: usize = 16 * 1024;
/// So many pieces go into one system call.
pub(crate) const SLICES_MAX: usize = 16;

impl Corked {
    /// Before the handshake.
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            held: Vec::new(),
            is_shaking_hands: true,
        }
    }

    /// The handshake has ended: what is written from now on is sent, behind what is held.
    pub(crate) fn uncork(&mut self) {
        self.is_shaking_hands = false;
    }

    /// The connection itself.
    pub(crate) fn tcp(&self) -> &TcpStream {
        &self.stream
    }

    fn poll_send_held(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.held.is_empty() {
            let sent = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.held))?;
            self.forget(sent)?;
        }
        Poll::Ready(Ok(()))
    }

    /// Of what is held, so much was sent.
    fn forget(&mut self, sent: usize) -> io::Result<()> {
        if sent == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        if sent < self.held.len() {
            self.held.drain(..sent);
        } else {
            // Gives the memory back.
            self.held = Vec::new();
        }
        Ok(())
    }
}

impl AsyncRead for Corked {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if read.is_pending()
            && self.is_shaking_hands
            && let Poll::Ready(Err(error)) = self.poll_send_held(cx)
        {
            return Poll::Ready(Err(error));
        }
        read
    }
}

impl AsyncWrite for Corked {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.is_shaking_hands {
            if this.held.len() >= HELD_BYTES_MAX {
                ready!(this.poll_send_held(cx))?;
            }
            for buf in bufs {
                this.held.extend_from_slice(buf);
            }
            return Poll::Ready(Ok(bufs.iter().map(|buf| buf.len()).sum()));
        }
        while !this.held.is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            slices[0] = IoSlice::new(&this.held);
            let count = bufs.len().min(SLICES_MAX - 1);
            slices[1..=count].copy_from_slice(&bufs[..count]);
            let stream = Pin::new(&mut this.stream);
            let sent = ready!(stream.poll_write_vectored(cx, &slices[..=count]))?;
            let behind = sent.saturating_sub(this.held.len());
            this.forget(sent)?;
            if behind > 0 {
                return Poll::Ready(Ok(behind));
            }
        }
        let stream = Pin::new(&mut this.stream);
        match bufs {
            // Its system call is the cheaper one.
            [one] => stream.poll_write(cx, one),
            _ => stream.poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.is_shaking_hands {
            ready!(self.poll_send_held(cx))?;
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send_held(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Drop for Corked {
    fn drop(&mut self) {
        if !self.held.is_empty() {
            // Why a handshake failed, mostly. A peer that takes nothing is not told.
            let _ = self.stream.try_write(&self.held);
        }
    }
}

#[cfg(test)]
mod tests;
