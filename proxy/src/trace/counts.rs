//! What became of spans.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DroppedLabels {
    reason: &'static str,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    exported: Counter,
    dropped: Family<DroppedLabels, Counter>,
}

impl Counts {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "meshgate_spans_exported",
            "Spans that the collector took",
            self.exported.clone(),
        );
        registry.register(
            "meshgate_spans_dropped",
            "Spans that the collector never got",
            self.dropped.clone(),
        );
    }

    pub(super) fn exported(&self, spans: usize) {
        self.exported.inc_by(spans as u64);
    }

    /// Because of "queue-full" (the collector is too slow, or away), "refused" (by it), or "shutdown".
    pub(super) fn dropped(&self, reason: &'static str, spans: usize) {
        if spans > 0 {
            let dropped = self.dropped.get_or_create(&DroppedLabels { reason });
            dropped.inc_by(spans as u64);
        }
    }
}
