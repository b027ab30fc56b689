//! What a proxy tells about its tie to the control plane.

use std::sync::atomic::AtomicU64;

use meshgate_certs::expiry::Validity;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;

use super::stream::Progress;
use crate::metrics::Metrics;

/// Series of identity and push.
#[derive(Debug, Clone, Default)]
pub(super) struct ControlMetrics {
    certificate_expires: Gauge,
    connected: Gauge,
    generation: Gauge<u64, AtomicU64>,
    refused: Counter,
    streams: Counter,
}

impl ControlMetrics {
    /// Adds the series to those of the proxy.
    pub(super) fn register(metrics: &Metrics) -> Self {
        let own = Self::default();
        metrics.register(|registry| {
            registry.register(
                "identity_cert_expiration_timestamp_seconds",
                "When this workload's certificate ends",
                own.certificate_expires.clone(),
            );
            registry.register(
                "meshgate_push_connected",
                "Whether the push stream is open",
                own.connected.clone(),
            );
            registry.register(
                "meshgate_push_generation",
                "The newest generation of the configuration that is enforced",
                own.generation.clone(),
            );
            registry.register(
                "meshgate_push_resources_refused",
                "Resources refused; their last good versions stay",
                own.refused.clone(),
            );
            registry.register(
                "meshgate_push_streams",
                "Push streams opened",
                own.streams.clone(),
            );
        });
        own
    }

    pub(super) fn certified(&self, validity: Validity) {
        self.certificate_expires.set(validity.not_after.as_second());
    }

    /// Follows from `before` to `now`.
    pub(super) fn progressed(&self, before: &Progress, now: &Progress) {
        self.connected.set(i64::from(now.connected));
        self.generation.set(now.generation);
        self.refused.inc_by(now.refused - before.refused);
        self.streams.inc_by(now.streams - before.streams);
    }
}
