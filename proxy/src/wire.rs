//! A connection's bytes: what was read and not taken yet, what is to be written and was not sent yet.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::AsyncWrite;
use tokio_util::io::poll_read_buf;

use crate::corked::SLICES_MAX;
use crate::io::Io;
use crate::spare;
use crate::stall::Stall;

/// Room for a read within a large body: fewer, larger system calls. Enough for 64 KiB and the head in front of them, and
/// little enough that the allocator takes it from pages of 512 KiB: those for more than 84 KiB have 4 MiB.
const BODY_READ_BYTES: usize = 80 * 1024;
/// Data up to this size is copied: behind what waits to be written, as one buffer is cheaper to write than several; and
/// out of what was read, as whoever keeps a piece would keep the whole of a large buffer alive.
const COPY_BYTES_MAX: usize = 8 * 1024;
/// So much may wait to be written before more is made.
const UNSENT_BYTES_MAX: usize = 32 * 1024;
/// So much only waits when the peer asks for ever more and takes nothing.
const JAMMED_BYTES_MIN: usize = 256 * 1024;
/// The peer's close is waited for so long after we have said all. Closing at once would reset the connection and destroy
/// what is on its way.
pub(crate) const LINGER_MAX: Duration = Duration::from_secs(1);
/// What a peer may go on saying until then.
const LINGER_BYTES_MAX: usize = 256 * 1024;
/// Buffers that grew larger than this are given back.
const KEPT_BYTES_MAX: usize = 64 * 1024;
/// Room for so many pieces is kept: it is small, and answers with large bodies need it.
const KEPT_PIECES: usize = 4;
/// The same between two reads: enough for most answers with a small body.
const WAITING_BYTES_MAX: usize = 16 * 1024;

/// Both directions of one connection.
#[derive(Debug)]
pub(crate) struct Wire {
    io: Io,
    pub(crate) read: BytesMut,
    unsent: Unsent,
    /// Bytes that were sent in all.
    written: u64,
    /// TLS took bytes, and may not have sent them.
    unflushed: bool,
    stall: Stall,
    /// The peer is told with the last of what waits that nothing follows.
    last: bool,
    /// Nothing more will be written.
    leaving: bool,
    /// Bytes that were read since then.
    thrown: usize,
}

/// What waits to be written: text, and larger pieces at their places in it.
#[derive(Debug, Default)]
struct Unsent {
    text: Vec<u8>,
    /// Bytes of `text` that are sent.
    sent: usize,
    /// With the length of the text in front of each.
    pieces: VecDeque<(usize, Bytes)>,
    /// Of all pieces.
    piece_bytes: usize,
}

/// What a reader expects, for the size of its buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Expect {
    Head,
    Body,
}

impl Wire {
    /// A write that makes no progress for `stall_timeout` fails.
    pub(crate) fn new(io: Io, stall_timeout: Option<Duration>) -> Self {
        Self {
            io,
            read: BytesMut::new(),
            unsent: Unsent::default(),
            written: 0,
            unflushed: false,
            stall: Stall::new(stall_timeout),
            last: false,
            leaving: false,
            thrown: 0,
        }
    }

    /// Reads more; `Ok(0)` is the end.
    pub(crate) fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        expect: Expect,
    ) -> Poll<io::Result<usize>> {
        self.make_room(match expect {
            Expect::Head => spare::BUFFER_BYTES,
            Expect::Body => BODY_READ_BYTES,
        });
        let read = poll_read_buf(Pin::new(&mut self.io), cx, &mut self.read);
        if read.is_pending() {
            self.give_back_read();
            if !self.has_unsent() {
                self.unsent.text.shrink_to(WAITING_BYTES_MAX);
            }
        }
        read
    }

    /// Half of it is enough, as long as nothing must be moved for more.
    fn make_room(&mut self, room: usize) {
        let left = self.read.len();
        if self.read.capacity() - left >= room / 2 {
            return;
        }
        let room = room.max(2 * left);
        if left == 0 && room == spare::BUFFER_BYTES {
            self.give_back_read();
            self.read = spare::buffer();
        } else if !self.read.try_reclaim(room - left) {
            // Left to grow by itself it would double, beyond what the allocator has smaller pages for.
            let mut larger = BytesMut::with_capacity(room);
            larger.extend_from_slice(&self.read);
            spare::give_buffer(std::mem::replace(&mut self.read, larger));
        }
    }

    /// Whoever only waits holds no memory.
    pub(crate) fn give_back_read(&mut self) {
        if self.read.is_empty() && self.read.capacity() > 0 {
            spare::give_buffer(std::mem::take(&mut self.read));
        }
    }

    /// Nobody knows for how long nothing will be written: the room for it is given back.
    pub(crate) fn rest(&mut self) {
        if !self.has_unsent() {
            self.unsent.give_back();
        }
    }

    /// Nothing is to be read, and the peer has not closed, as far as is known without waiting. What is not quiet is of no
    /// more use.
    pub(crate) fn is_quiet(&mut self) -> bool {
        self.read.is_empty() && !self.has_unsent() && !self.io.has_input()
    }

    /// Bytes that were sent in all.
    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    /// Bytes that were sent, and that wait to be.
    pub(crate) fn position(&self) -> u64 {
        self.written + self.unsent.bytes() as u64
    }

    /// What was read, and where heads and small pieces are written to.
    pub(crate) fn both(&mut self) -> (&[u8], &mut Vec<u8>) {
        (&self.read, self.unsent.front())
    }

    /// Where heads and small pieces are written to.
    pub(crate) fn front(&mut self) -> &mut Vec<u8> {
        self.unsent.front()
    }

    /// Whether what waits should be sent before more is put behind it.
    pub(crate) fn is_full(&self) -> bool {
        self.unsent.bytes() >= UNSENT_BYTES_MAX
    }

    /// Whether the peer must not be listened to any more before it takes what it asked for.
    pub(crate) fn is_jammed(&self) -> bool {
        self.unsent.bytes() >= JAMMED_BYTES_MIN
    }

    pub(crate) fn has_unsent(&self) -> bool {
        self.unsent.bytes() > 0 || self.unflushed
    }

    /// Puts data, followed by `back`, behind what waits.
    pub(crate) fn put(&mut self, data: Bytes, back: &'static [u8]) {
        self.unsent.put(data);
        self.unsent.text.extend_from_slice(back);
    }

    /// Takes bytes that were read.
    pub(crate) fn take(&mut self, count: usize) -> Bytes {
        if count > COPY_BYTES_MAX {
            return self.read.split_to(count).freeze();
        }
        let data = Bytes::copy_from_slice(&self.read[..count]);
        self.read.advance(count);
        data
    }

    /// What waits is all that will ever be written, and the end is said behind it at once: it goes with it, that of TLS as
    /// well, not in packets of their own.
    pub(crate) fn end_with_this(&mut self) {
        self.last = true;
    }

    /// Sends all that waits.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.last && self.unsent.bytes() > 0 {
            self.io.hold_for_end();
        }
        while self.unsent.bytes() > 0 {
            self.unflushed = true;
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let written = match self.unsent.fill(&mut slices) {
                1 => Pin::new(&mut self.io).poll_write(cx, &slices[0]),
                count => Pin::new(&mut self.io).poll_write_vectored(cx, &slices[..count]),
            };
            match ready!(self.stall.judge(cx, written))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => {
                    self.written += count as u64;
                    self.unsent.advance(count);
                }
            }
        }
        if std::mem::take(&mut self.last) {
            self.io.say_goodbye();
        }
        let flushed = Pin::new(&mut self.io).poll_flush(cx);
        let flushed = ready!(self.stall.judge(cx, flushed));
        self.unflushed = false;
        Poll::Ready(flushed)
    }

    /// The peer will see an error, not an end.
    pub(crate) fn reset_on_close(&self) {
        self.io.reset_on_close();
    }

    /// Says that nothing more will be written.
    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.io).poll_shutdown(cx);
        self.stall.judge(cx, shut)
    }

    /// Says that nothing more will be written, and waits for the peer to say the same. False when it says too much.
    pub(crate) fn poll_leave(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        if !self.leaving {
            if ready!(self.poll_shutdown(cx)).is_err() {
                return Poll::Ready(false);
            }
            self.leaving = true;
        }
        loop {
            self.thrown += self.read.len();
            self.read.clear();
            if self.thrown > LINGER_BYTES_MAX {
                return Poll::Ready(false);
            }
            if !matches!(ready!(self.poll_fill(cx, Expect::Head)), Ok(1..)) {
                return Poll::Ready(true);
            }
        }
    }

    /// Nothing is read or written any more; the peer is told at once, whoever still holds this.
    pub(crate) fn hang_up(&mut self) {
        self.io = Io::closed();
        self.read = BytesMut::new();
        self.unsent = Unsent::default();
        self.unflushed = false;
    }

    /// The bytes themselves, for another protocol; what was read ahead comes first.
    pub(crate) fn into_io(self) -> Io {
        self.io.with_ahead(self.read.freeze())
    }
}

/// Text that was sent is dropped when it is so much.
const SENT_BYTES_MAX: usize = 16 * 1024;

impl Unsent {
    /// Nothing waits: the room for it is given back.
    fn give_back(&mut self) {
        if self.text.capacity() > 0 {
            spare::give_text(std::mem::take(&mut self.text));
        }
        if self.pieces.capacity() > KEPT_PIECES {
            self.pieces = VecDeque::new();
        }
    }

    /// Where text is written to.
    fn front(&mut self) -> &mut Vec<u8> {
        if self.text.capacity() == 0 {
            self.text = spare::text();
        }
        &mut self.text
    }

    /// Of text and pieces.
    fn bytes(&self) -> usize {
        self.text.len() - self.sent + self.piece_bytes
    }

    fn put(&mut self, data: Bytes) {
        if data.len() <= COPY_BYTES_MAX {
            self.front().extend_from_slice(&data);
        } else {
            self.piece_bytes += data.len();
            self.pieces.push_back((self.text.len(), data));
        }
    }

    /// The beginning of what waits, in order; says in how many slices.
    fn fill<'a>(&'a self, slices: &mut [IoSlice<'a>; SLICES_MAX]) -> usize {
        let (mut count, mut from) = (0, self.sent);
        let mut push = |bytes: &'a [u8]| {
            if let (false, Some(slice)) = (bytes.is_empty(), slices.get_mut(count)) {
                *slice = IoSlice::new(bytes);
                count += 1;
            }
        };
        for (at, data) in self.pieces.iter().take(SLICES_MAX) {
            push(&self.text[from..*at]);
            push(data);
            from = *at;
        }
        push(&self.text[from..]);
        count
    }

    fn advance(&mut self, mut count: usize) {
        while count > 0 {
            let text_end = self.pieces.front().map_or(self.text.len(), |(at, _)| *at);
            let from_text = count.min(text_end - self.sent);
            self.sent += from_text;
            count -= from_text;
            let Some((_, data)) = self.pieces.front_mut().filter(|_| count > 0) else {
                break;
            };
            let from_data = count.min(data.len());
            data.advance(from_data);
            self.piece_bytes -= from_data;
            count -= from_data;
            if data.is_empty() {
                // Gives the reader's buffer back.
                self.pieces.pop_front();
            }
        }
        self.forget_sent();
    }

    fn forget_sent(&mut self) {
        if self.sent == self.text.len() && self.pieces.is_empty() {
            self.sent = 0;
            self.text.clear();
            self.text.shrink_to(KEPT_BYTES_MAX);
        } else if self.sent >= SENT_BYTES_MAX {
            self.text.drain(..self.sent);
            for (at, _) in &mut self.pieces {
                *at -= self.sent;
            }
            self.sent = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever the sizes of pieces and of writes, the bytes come out in order.
    #[test]
    fn text_and_pieces_keep_their_order() {
        let mut unsent = Unsent::default();
        let (mut expected, mut sent) = (Vec::new(), Vec::new());
        for round in 0..200_usize {
            let size = [1, 9, 5_000, COPY_BYTES_MAX + 1, 20_000][round % 5];
            let data: Vec<u8> = (0..size).map(|index| (index * 7 + round) as u8).collect();
            expected.extend_from_slice(&data);
            unsent.put(data.into());
            let text = format!("<{round}>");
            expected.extend_from_slice(text.as_bytes());
            unsent.text.extend_from_slice(text.as_bytes());
            assert_eq!(unsent.bytes(), expected.len() - sent.len());
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let count = unsent.fill(&mut slices);
            let offered: Vec<u8> = slices[..count].iter().flat_map(|s| s.to_vec()).collect();
            let taken = offered.len() * (round % 4) / 3;
            sent.extend_from_slice(&offered[..taken.min(offered.len())]);
            unsent.advance(taken.min(offered.len()));
        }
        while unsent.bytes() > 0 {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let count = unsent.fill(&mut slices);
            let offered: Vec<u8> = slices[..count].iter().flat_map(|s| s.to_vec()).collect();
            sent.extend_from_slice(&offered);
            unsent.advance(offered.len());
        }
        assert_eq!(sent, expected);
    }
}
