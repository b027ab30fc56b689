//! An HTTP/1 connection's bytes: what was read and not taken yet, what is to be written and was not sent yet.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::AsyncWrite;
use tokio_util::io::poll_read_buf;

use crate::io::Io;
use crate::stall::Stall;

/// Room for a read while heads are expected: most heads with a small body fit.
const HEAD_READ_BYTES: usize = 8 * 1024;
/// Room for a read within a large body: fewer, larger system calls.
const BODY_READ_BYTES: usize = 64 * 1024;
/// Data up to this size is copied behind what waits to be written: one buffer is cheaper to write than several.
const COPY_BYTES_MAX: usize = 8 * 1024;
/// So much may wait to be written before more is made.
const UNSENT_BYTES_MAX: usize = 32 * 1024;
/// Buffers that grew larger than this are given back.
const KEPT_BYTES_MAX: usize = 64 * 1024;
/// The same while there is nothing to do. Room for heads and small answers is worth keeping.
const KEPT_RESTING_BYTES_MAX: usize = 2 * 1024;

/// Both directions of one connection.
#[derive(Debug)]
pub(crate) struct Wire {
    io: Io,
    pub(super) read: BytesMut,
    unsent: Unsent,
    /// Bytes that were sent in all.
    written: u64,
    stall: Stall,
}

/// What waits to be written, in this order: `front`, `data`, `back`.
#[derive(Debug, Default)]
struct Unsent {
    front: Vec<u8>,
    /// Bytes of `front` that are sent.
    sent: usize,
    data: Bytes,
    back: &'static [u8],
}

/// What a reader expects, for the size of its buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Expect {
    Head,
    Body,
}

impl Wire {
    /// A write that makes no progress for `stall_timeout` fails.
    pub(super) fn new(io: Io, stall_timeout: Option<Duration>) -> Self {
        Self {
            io,
            read: BytesMut::new(),
            unsent: Unsent::default(),
            written: 0,
            stall: Stall::new(stall_timeout),
        }
    }

    /// Reads more; `Ok(0)` is the end.
    pub(super) fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        expect: Expect,
    ) -> Poll<io::Result<usize>> {
        let room = match expect {
            Expect::Head => HEAD_READ_BYTES,
            Expect::Body => BODY_READ_BYTES,
        };
        if self.read.capacity() - self.read.len() < room / 2 {
            self.read.reserve(room);
        }
        let read = poll_read_buf(Pin::new(&mut self.io), cx, &mut self.read);
        if read.is_pending() && self.read.is_empty() {
            // Whoever only waits holds no memory.
            self.read = BytesMut::new();
        }
        read
    }

    /// Nobody knows for how long nothing will be written: a large buffer for it is given back.
    pub(super) fn rest(&mut self) {
        if self.unsent.is_empty() && self.unsent.front.capacity() > KEPT_RESTING_BYTES_MAX {
            self.unsent = Unsent::default();
        }
    }

    /// Nothing is to be read, and the peer has not closed, as far as is known without waiting. What is not quiet is of no
    /// more use.
    pub(super) fn is_quiet(&self) -> bool {
        self.read.is_empty() && self.unsent.is_empty() && !self.io.has_input()
    }

    /// Bytes that were sent in all.
    pub(super) fn written(&self) -> u64 {
        self.written
    }

    /// Where heads and small pieces are written to.
    pub(super) fn front(&mut self) -> &mut Vec<u8> {
        &mut self.unsent.front
    }

    /// Whether what waits must be sent before more is put behind it.
    pub(super) fn is_full(&self) -> bool {
        !self.unsent.data.is_empty()
            || !self.unsent.back.is_empty()
            || self.unsent.front.len() >= UNSENT_BYTES_MAX
    }

    pub(super) fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// Puts data, followed by `back`, behind what waits. Only when it is not full.
    pub(super) fn put(&mut self, data: Bytes, back: &'static [u8]) {
        if data.len() <= COPY_BYTES_MAX {
            self.unsent.front.extend_from_slice(&data);
            self.unsent.front.extend_from_slice(back);
        } else {
            self.unsent.data = data;
            self.unsent.back = back;
        }
    }

    /// Sends all that waits.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.unsent.is_empty() {
            let pieces = self.unsent.pieces();
            let written = match pieces {
                [front, [], []] => Pin::new(&mut self.io).poll_write(cx, front),
                _ => Pin::new(&mut self.io).poll_write_vectored(cx, &pieces.map(IoSlice::new)),
            };
            match ready!(self.stall.judge(cx, written))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => {
                    self.written += count as u64;
                    self.unsent.advance(count);
                }
            }
        }
        let flushed = Pin::new(&mut self.io).poll_flush(cx);
        self.stall.judge(cx, flushed)
    }

    /// The peer will see an error, not an end.
    pub(super) fn reset_on_close(&self) {
        self.io.reset_on_close();
    }

    /// Says that nothing more will be written.
    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.io).poll_shutdown(cx);
        self.stall.judge(cx, shut)
    }

    /// The bytes themselves, for another protocol; what was read ahead comes first.
    pub(super) fn into_io(self) -> Io {
        self.io.with_ahead(self.read.freeze())
    }
}

impl Unsent {
    fn is_empty(&self) -> bool {
        self.sent == self.front.len() && self.data.is_empty() && self.back.is_empty()
    }

    fn pieces(&self) -> [&[u8]; 3] {
        [&self.front[self.sent..], &self.data, self.back]
    }

    fn advance(&mut self, count: usize) {
        let from_front = count.min(self.front.len() - self.sent);
        self.sent += from_front;
        let from_data = (count - from_front).min(self.data.len());
        self.data.advance(from_data);
        self.back = &self.back[count - from_front - from_data..];
        if self.sent == self.front.len() {
            self.sent = 0;
            self.front.clear();
            self.front.shrink_to(KEPT_BYTES_MAX);
        }
        if self.data.is_empty() {
            // Gives the reader's buffer back.
            self.data = Bytes::new();
        }
    }
}
