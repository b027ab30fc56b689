//! One line for each request and each TCP connection, written off the path by a thread of its own.

mod exchange;
mod line;

use std::io::Write;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

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

/// Lines that wait for the writer; what comes while it is full is counted and dropped, because a slow disk must not
/// slow a request.
const LINES_WAITING_MAX: usize = 4096;

/// Where records go.
#[derive(Debug)]
pub(crate) struct Recorder {
    lines: Option<SyncSender<Line>>,
    metrics: Arc<Metrics>,
}

impl Recorder {
    /// Starts the writer, which ends when the recorder is dropped. Without a format, or without a thread, there are
    /// no records.
    pub(crate) fn start(format: Option<RecordFormat>, metrics: Arc<Metrics>) -> Self {
        let lines = format.and_then(|format| {
            let (sender, receiver) = sync_channel(LINES_WAITING_MAX);
            std::thread::Builder::new()
                .name("records".into())
                .stack_size(256 * 1024)
                .spawn(move || write_lines(format, &receiver))
                .map(|_| sender)
                .map_err(
                    |error| tracing::error!(%error, "cannot start the writer of access records"),
                )
                .ok()
        });
        Self { lines, metrics }
    }

    pub(crate) fn is_on(&self) -> bool {
        self.lines.is_some()
    }

    pub(crate) fn write(&self, line: Line) {
        if let Some(lines) = &self.lines
            && lines.try_send(line).is_err()
        {
            self.metrics.records_lost.inc();
        }
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }
}

fn write_lines(format: RecordFormat, lines: &Receiver<Line>) {
    let mut text = String::new();
    while let Ok(first) = lines.recv() {
        text.clear();
        for line in std::iter::once(first).chain(lines.try_iter().take(256)) {
            match format {
                RecordFormat::Json => line.write_json(&mut text),
                RecordFormat::Text => line.write_text(&mut text),
            }
        }
        // Nobody reads any more: the proxy's work goes on without.
        let _ = std::io::stdout().lock().write_all(text.as_bytes());
    }
}
