//! An HTTP/1 connection's bytes, judged before the library reads them, with a deadline for every wait.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Buf, Bytes};
use meshgate_routing::Time;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep};

use super::Connection;
use super::framing::{Fault, Framer, Phase, Then};
use super::stall::Stall;
use crate::clock;
use crate::io::Io;
use crate::listen::ListenerLimits;
use crate::metrics::Metrics;

/// What the exchanges of a connection tell its byte stream.
#[derive(Debug, Default)]
pub(crate) struct Exchanges {
    open: AtomicU32,
    begun: AtomicU32,
    used_up: Notify,
    retiring: AtomicBool,
    last_end: AtomicU64,
    changed_protocol: AtomicBool,
    reader: Mutex<Option<Waker>>,
}

/// One exchange of a connection; over when dropped.
#[derive(Debug)]
pub(crate) struct OpenExchange(Arc<Exchanges>);

impl Exchanges {
    /// One more; the `most`-th is the last.
    pub(crate) fn begin(self: &Arc<Self>, most: u32) -> OpenExchange {
        self.open.fetch_add(1, Ordering::AcqRel);
        if self.begun.fetch_add(1, Ordering::Relaxed).saturating_add(1) >= most {
            self.used_up.notify_one();
        }
        OpenExchange(self.clone())
    }

    /// The answer is a change of protocol.
    pub(crate) fn change_protocol(&self) {
        self.changed_protocol.store(true, Ordering::Release);
        self.wake();
    }

    /// From now on every answer is the last.
    pub(super) fn retire(&self) {
        self.retiring.store(true, Ordering::Release);
    }

    pub(super) fn is_retiring(&self) -> bool {
        self.retiring.load(Ordering::Acquire)
    }

    /// Returns with the last request that the connection may carry.
    pub(super) async fn used_up(&self) {
        self.used_up.notified().await;
    }

    pub(super) fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire) > 0
    }

    /// When the last exchange ended.
    pub(super) fn last_end(&self) -> Time {
        Time::from_nanos(self.last_end.load(Ordering::Acquire))
    }

    fn wake(&self) {
        let waker = self
            .reader
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn wake_me(&self, cx: &Context<'_>) {
        *self.reader.lock().unwrap_or_else(PoisonError::into_inner) = Some(cx.waker().clone());
    }
}

impl Drop for OpenExchange {
    fn drop(&mut self) {
        let now = clock::now().as_nanos();
        self.0.last_end.store(now, Ordering::Release);
        self.0.open.fetch_sub(1, Ordering::AcqRel);
        self.0.wake();
    }
}

/// The stream that the HTTP library reads and writes.
#[derive(Debug)]
pub(super) struct Strict {
    io: Io,
    framer: Framer,
    exchanges: Arc<Exchanges>,
    limits: ListenerLimits,
    metrics: Arc<Metrics>,
    direction: &'static str,
    /// Bytes that wait for the answer to a change of protocol.
    held: Bytes,
    ending: Option<Ending>,
    timer: Pin<Box<Sleep>>,
    /// What the timer is set for; `None` when it is not.
    waiting: Option<Wait>,
    stall: Stall,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wait {
    Idle,
    Head,
    Body,
}

/// A last answer, then patience until the client closed: closing at once would reset the connection and destroy the
/// answer on its way.
#[derive(Debug)]
enum Ending {
    Answer(Bytes),
    Shut,
    Linger { bytes: usize },
}

/// While lingering.
const LINGER_MAX: Duration = Duration::from_secs(1);
const LINGER_BYTES_MAX: usize = 256 * 1024;

impl Strict {
    pub(super) fn new(io: Io, exchanges: Arc<Exchanges>, connection: &Connection) -> Self {
        Self {
            io,
            framer: Framer::default(),
            exchanges,
            limits: connection.limits,
            metrics: connection.shared.metrics.clone(),
            direction: connection.direction.name(),
            held: Bytes::new(),
            ending: None,
            timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
            waiting: None,
            stall: Stall::new(connection.limits.write_stall_timeout),
        }
    }

    /// Reads what may be read; cuts off what may not.
    fn poll_pass(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.framer.phase() == Phase::Asking {
            let changed = self.exchanges.changed_protocol.load(Ordering::Acquire);
            self.exchanges.wake_me(cx);
            if !changed && self.exchanges.is_open() {
                return Poll::Pending;
            }
            self.framer.answered(changed);
        }
        let start = buf.filled().len();
        if self.held.is_empty() {
            std::task::ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        } else {
            let count = self.held.len().min(buf.remaining());
            buf.put_slice(&self.held[..count]);
            self.held.advance(count);
        }
        let in_head = self.framer.phase() == Phase::Head;
        let read = &buf.filled()[start..];
        let (accepted, then) = self.framer.feed(read);
        if !(in_head && self.framer.phase() == Phase::Head) {
            self.waiting = None;
        }
        match then {
            Then::More => {}
            Then::Hold => {
                let mut rest = read[accepted..].to_vec();
                rest.extend_from_slice(&self.held);
                self.held = rest.into();
                buf.set_filled(start + accepted);
            }
            Then::Fault(fault) => {
                buf.set_filled(start + accepted);
                self.metrics.refused(self.direction, fault.reason());
                self.ending = Some(Ending::Answer(answer(fault)));
                if accepted == 0 {
                    return self.poll_end(cx);
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    /// The wait for the next bytes has a deadline.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let (wait, patience) = match self.framer.phase() {
            Phase::Idle => (Wait::Idle, self.limits.keep_alive),
            Phase::Head => (Wait::Head, self.limits.header_timeout),
            Phase::Length(_) | Phase::Chunked(_) => (Wait::Body, self.limits.body_idle_timeout),
            Phase::Asking | Phase::Open => return Poll::Pending,
        };
        // A head's deadline runs from its first byte on, not from its last.
        if self.waiting != Some(wait) {
            self.waiting = Some(wait);
            self.timer.as_mut().reset(Instant::now() + patience);
        }
        loop {
            std::task::ready!(self.timer.as_mut().poll(cx));
            match wait {
                Wait::Idle if self.exchanges.is_open() => {
                    self.timer.as_mut().reset(Instant::now() + patience);
                }
                Wait::Idle => {
                    let idle = clock::now().since(self.exchanges.last_end());
                    if self.exchanges.last_end() == Time::ZERO || idle >= patience {
                        // As if the client had closed.
                        return Poll::Ready(Ok(()));
                    }
                    self.timer
                        .as_mut()
                        .reset(Instant::now() + (patience - idle));
                }
                Wait::Head => {
                    self.metrics.refused(self.direction, "client-timeout");
                    let text = &b"HTTP/1.1 408 Request Timeout\r\nMeshgate-Reason: client-timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"[..];
                    self.ending = Some(Ending::Answer(Bytes::from_static(text)));
                    return self.poll_end(cx);
                }
                Wait::Body => return Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            }
        }
    }

    /// Says why, waits for the client to close, and ends.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let ended = || Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        loop {
            match &mut self.ending {
                None => return ended(),
                Some(Ending::Answer(answer)) => {
                    // Answers to earlier requests first.
                    self.exchanges.wake_me(cx);
                    if self.exchanges.is_open() {
                        return Poll::Pending;
                    }
                    match std::task::ready!(Pin::new(&mut self.io).poll_write(cx, answer)) {
                        Ok(written) if written < answer.len() => answer.advance(written),
                        Ok(_) => self.ending = Some(Ending::Shut),
                        Err(_) => return ended(),
                    }
                }
                Some(Ending::Shut) => {
                    let shut = std::task::ready!(Pin::new(&mut self.io).poll_shutdown(cx));
                    if shut.is_err() {
                        return ended();
                    }
                    self.ending = Some(Ending::Linger { bytes: 0 });
                    self.timer.as_mut().reset(Instant::now() + LINGER_MAX);
                }
                Some(Ending::Linger { bytes }) => {
                    if self.timer.as_mut().poll(cx).is_ready() || *bytes > LINGER_BYTES_MAX {
                        return ended();
                    }
                    let mut space = [std::mem::MaybeUninit::uninit(); 4096];
                    let mut waste = ReadBuf::uninit(&mut space);
                    match std::task::ready!(Pin::new(&mut self.io).poll_read(cx, &mut waste)) {
                        Ok(()) if !waste.filled().is_empty() => *bytes += waste.filled().len(),
                        _ => return ended(),
                    }
                }
            }
        }
    }
}

fn answer(fault: Fault) -> Bytes {
    let reason = fault.reason();
    let (status, why) = match fault {
        Fault::Bad(why) => ("400 Bad Request", why),
        Fault::HeadTooLarge => (
            "431 Request Header Fields Too Large",
            "more than 64 KiB or 100 fields",
        ),
    };
    let body = format!("{reason}; {why}\n");
    format!(
        "HTTP/1.1 {status}\r\nServer: meshgate\r\nMeshgate-Reason: {reason}; {why}\r\nConnection: close\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into()
}

impl AsyncRead for Strict {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.ending.is_some() {
            return this.poll_end(cx);
        }
        match this.poll_pass(cx, buf) {
            Poll::Pending => this.poll_deadline(cx),
            ready => ready,
        }
    }
}

impl AsyncWrite for Strict {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.io).poll_write(cx, buf);
        this.stall.judge(cx, written)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.io).poll_write_vectored(cx, bufs);
        this.stall.judge(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}
