//! Spans: what a request and its attempts took, told to a collector by OpenTelemetry's protocol (OTLP over gRPC).
//!
//! A request that is sampled carries its trace in its record; when that closes, its spans go into the worker's tray. One
//! thread takes them from there and sends them on. Without a collector there is none of this.

mod collector;
mod context;
mod counts;
mod export;
mod otlp;
mod sampler;
mod settings;
mod span;
mod tray;

use std::sync::Arc;

use meshgate_codec::{Fields, Known};
use tokio_util::sync::CancellationToken;

pub use collector::{Collector, InvalidCollector};
pub(crate) use context::TraceParent;
pub use sampler::{Ratio, Sampler};
pub use settings::{Flags, TraceOptions};
pub(crate) use span::{Finished, Outcome, Trace};

use crate::metrics::Metrics;
use counts::Counts;
use export::Exporter;
use tray::Trays;

/// Decides which requests have spans, and takes those of requests that are over.
#[derive(Debug)]
pub(crate) struct Tracer {
    sampler: Sampler,
    trays: Arc<Trays>,
    counts: Counts,
    closing: CancellationToken,
    ended: CancellationToken,
}

impl Tracer {
    /// Starts the exporter. Without a thread there are no spans.
    pub(crate) fn start(
        options: &TraceOptions,
        workers: usize,
        mark: Option<u32>,
        metrics: &Metrics,
    ) -> Option<Self> {
        let trays = Arc::new(Trays::new(
            workers,
            options.queue_spans_max,
            options.batch_spans_max,
        ));
        let counts = Counts::default();
        metrics.register(|registry| counts.register(registry));
        let tracer = Self {
            sampler: options.sampler,
            trays: trays.clone(),
            counts: counts.clone(),
            closing: CancellationToken::new(),
            ended: CancellationToken::new(),
        };
        let exporter = Exporter::new(options.clone(), mark, trays, counts);
        let (closing, ended) = (tracer.closing.clone(), tracer.ended.clone());
        std::thread::Builder::new()
            .name("spans".into())
            .stack_size(512 * 1024)
            .spawn(move || {
                let _ended = ended.drop_guard();
                exporter.work(closing);
            })
            .map_err(|error| tracing::error!(%error, "cannot start the exporter of spans"))
            .ok()?;
        Some(tracer)
    }

    /// Whether a request is sampled, and by which names it is known from here on. What its fields say of a trace counts
    /// where who sent them is trusted; else, as where they say nothing or nonsense, a trace begins.
    pub(crate) fn begin(
        &self,
        fields: &mut Fields,
        trusted: bool,
        [high, low, span]: [u64; 3],
    ) -> Option<Box<Trace>> {
        let parent = trusted.then(|| TraceParent::of(fields)).flatten();
        let new = TraceParent::new([high, low, span], true);
        let trace_id = parent.map_or(new.trace_id, |parent| parent.trace_id);
        let sampled = self.sampler.samples(parent, trace_id);
        if parent.is_none() {
            fields.remove(Known::Tracestate);
        }
        let own = TraceParent {
            trace_id,
            sampled,
            ..new
        };
        match parent {
            _ if sampled => return Some(Box::new(Trace::new(own, parent))),
            // Nobody here adds to that trace: who asked stays the parent of who is asked.
            Some(parent) if !parent.sampled => {}
            _ => own.write(fields),
        }
        None
    }

    /// A request is over.
    pub(crate) fn finished(&self, finished: Finished) {
        if let Err(spans) = self.trays.put(finished) {
            self.counts.dropped("queue-full", spans);
        }
    }

    /// Sends what is left, within a deadline; returns when that is done.
    pub(crate) async fn end(&self) {
        self.closing.cancel();
        self.ended.cancelled().await;
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        self.closing.cancel();
    }
}
