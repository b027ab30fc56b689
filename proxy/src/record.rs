//! One line for each request and each TCP connection, written off the path by a thread of its own.

mod exchange;
mod line;

use std::io::Write;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub(crate) use exchange::Exchange;
pub(crate) use line::Line;

use crate::metrics::Metrics;

/// How access records look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// Lines that wait for the writer, in bytes; what comes while it is full is counted and dropped, because a slow disk
/// must not slow a request.
const WAITING_BYTES_MAX: usize = 4 * 1024 * 1024;
/// A line waits so long for company: the writer is woken, and the kernel asked, once for all of them.
const GATHER: Duration = Duration::from_millis(20);
/// So much is company enough: more would only leave the processor's caches before it is written.
const GATHERED_BYTES: usize = 128 * 1024;
/// Room that is kept for the next lines.
const KEPT_BYTES_MAX: usize = 256 * 1024;
/// The last lines have so long to be taken: a reader that reads no more must not keep the process from ending.
const LAST_LINES_MAX: Duration = Duration::from_secs(2);

/// Where records go.
#[derive(Debug)]
pub(crate) struct Recorder {
    writer: Option<Writer>,
    metrics: Arc<Metrics>,
}

#[derive(Debug)]
struct Writer {
    format: RecordFormat,
    tray: Arc<Tray>,
    /// Closed by the thread's end.
    ended: Mutex<Receiver<()>>,
    patience: Duration,
}

/// Between those who write lines and the one who writes them out.
#[derive(Debug, Default)]
struct Tray {
    waiting: Mutex<Waiting>,
    filled: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    text: Vec<u8>,
    closed: bool,
}

impl Recorder {
    /// Starts the writer, which ends when the recorder is dropped. Without a format, or without a thread, there are
    /// no records.
    pub(crate) fn start(format: Option<RecordFormat>, metrics: Arc<Metrics>) -> Self {
        let writer = format.and_then(|format| {
            Writer::start(format, std::io::stdout(), LAST_LINES_MAX)
                .map_err(
                    |error| tracing::error!(%error, "cannot start the writer of access records"),
                )
                .ok()
        });
        Self { writer, metrics }
    }

    pub(crate) fn is_on(&self) -> bool {
        self.writer.is_some()
    }

    pub(crate) fn write(&self, line: &Line) {
        if let Some(writer) = &self.writer
            && !writer.tray.put(|out| match writer.format {
                RecordFormat::Json => line.write_json(out),
                RecordFormat::Text => line.write_text(out),
            })
        {
            self.metrics.records_lost.inc();
        }
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }
}

impl Writer {
    /// Its thread writes to `out`, and is waited for at the end for so long as `patience` says.
    fn start(
        format: RecordFormat,
        out: impl Write + Send + 'static,
        patience: Duration,
    ) -> std::io::Result<Self> {
        let tray = Arc::new(Tray::default());
        let filled = tray.clone();
        let (ends, ended) = channel();
        std::thread::Builder::new()
            .name("records".into())
            .stack_size(256 * 1024)
            .spawn(move || {
                let _ends = ends;
                filled.empty_to(out);
            })?;
        Ok(Self {
            format,
            tray,
            ended: Mutex::new(ended),
            patience,
        })
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.tray.lock().closed = true;
        self.tray.filled.notify_one();
        let ended = self.ended.get_mut().unwrap_or_else(PoisonError::into_inner);
        if ended.recv_timeout(self.patience) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!("nobody reads the access records: the last ones are lost");
        }
    }
}

impl Tray {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds what `write` writes; false when there is no room.
    fn put(&self, write: impl FnOnce(&mut Vec<u8>)) -> bool {
        let mut waiting = self.lock();
        if waiting.text.len() >= WAITING_BYTES_MAX {
            return false;
        }
        let before = waiting.text.len();
        write(&mut waiting.text);
        let after = waiting.text.len();
        drop(waiting);
        if before == 0 || (before..after).contains(&GATHERED_BYTES) {
            self.filled.notify_one();
        }
        true
    }

    /// Writes out what comes, until the tray is closed and empty.
    fn empty_to(&self, mut out: impl Write) {
        let mut text = Vec::new();
        loop {
            let waiting = self
                .filled
                .wait_while(self.lock(), |waiting| {
                    waiting.text.is_empty() && !waiting.closed
                })
                .unwrap_or_else(PoisonError::into_inner);
            let gathered = self
                .filled
                .wait_timeout_while(waiting, GATHER, |waiting| {
                    waiting.text.len() < GATHERED_BYTES && !waiting.closed
                })
                .unwrap_or_else(PoisonError::into_inner);
            let mut waiting = gathered.0;
            if waiting.text.is_empty() {
                return;
            }
            std::mem::swap(&mut text, &mut waiting.text);
            drop(waiting);
            // Nobody reads any more: the proxy's work goes on without.
            let _ = out.write_all(&text);
            text.clear();
            text.shrink_to(KEPT_BYTES_MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_out_whole_and_in_order_and_the_last_before_the_end() {
        let tray = Arc::new(Tray::default());
        let filled = tray.clone();
        let writer = std::thread::spawn(move || {
            let mut out = Vec::new();
            filled.empty_to(&mut out);
            out
        });
        for number in 0..1000 {
            assert!(tray.put(|out| out.extend_from_slice(format!("{number}\n").as_bytes())));
        }
        tray.lock().closed = true;
        tray.filled.notify_one();
        let expected: String = (0..1000).map(|number| format!("{number}\n")).collect();
        assert_eq!(String::from_utf8(writer.join().unwrap()).unwrap(), expected);
    }

    #[test]
    fn a_reader_that_reads_no_more_does_not_keep_the_writer_from_ending() {
        let (reader, out) = std::io::pipe().unwrap();
        let patience = Duration::from_millis(1);
        let writer = Writer::start(RecordFormat::Json, out, patience).unwrap();
        // More than any pipe holds.
        assert!(writer.tray.put(|out| out.resize(2 * 1024 * 1024, b'x')));
        drop(writer);
        drop(reader);
    }

    #[test]
    fn a_reader_that_is_too_slow_loses_lines_and_holds_nobody_up() {
        let tray = Tray::default();
        let line = [b'x'; 1024];
        let taken = (0..8 * 1024).filter(|_| tray.put(|out| out.extend_from_slice(&line)));
        assert_eq!(taken.count(), WAITING_BYTES_MAX / line.len());
    }
}
