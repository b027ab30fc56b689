//! What a proxy counts. One vocabulary for edge and sidecar; labels are closed sets or bounded.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use meshgate_routing::Configured;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Series of one family that depend on configuration or peers; what comes later is counted under "other". Two
/// hundred bytes a series make this a few hundred kilobytes at worst.
const SERIES_MAX: u64 = 2_000;

/// Seconds; from the time a proxy adds to the default request timeout.
const LATENCY_BUCKETS_S: [f64; 13] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0,
];

/// Labels of requests.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    /// "edge", "inbound", "outbound".
    pub direction: &'static str,
    /// The object a rule comes from, or the service.
    pub route: Arc<str>,
    /// "namespace/name:port".
    pub service: Arc<str>,
    /// Identity of the caller, or "plain".
    pub peer: Arc<str>,
    /// Status of the answer; 0 when the client left before one.
    pub status: u16,
    /// Why the proxy answered itself; empty when the endpoint did.
    pub reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    direction: &'static str,
    service: Arc<str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ListenerLabels {
    listener: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusedLabels {
    listener: &'static str,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BytesLabels {
    direction: &'static str,
    flow: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct UpstreamLabels {
    service: Arc<str>,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LimitLabels {
    limit: Arc<str>,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EvictedLabels {
    limit: Arc<str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TcpLabels {
    direction: &'static str,
    service: Arc<str>,
    peer: Arc<str>,
    reason: &'static str,
}

/// Handles of one series, and the labels that it was asked for with: as long as they are held, nothing else has their
/// addresses.
struct RequestSeries {
    _named: RequestLabels,
    requests: Counter,
    latencies: Histogram,
    bytes_in: Counter,
    bytes_out: Counter,
}

/// Labels of a request, borrowed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Told<'a> {
    pub(crate) direction: &'static str,
    pub(crate) route: &'a Arc<str>,
    pub(crate) service: &'a Arc<str>,
    pub(crate) peer: &'a Arc<str>,
    pub(crate) status: u16,
    pub(crate) reason: &'static str,
}

impl Told<'_> {
    fn labels(self) -> RequestLabels {
        RequestLabels {
            direction: self.direction,
            route: self.route.clone(),
            service: self.service.clone(),
            peer: self.peer.clone(),
            status: self.status,
            reason: self.reason,
        }
    }
}

/// What a request that is over adds to its series.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spent {
    pub(crate) took: Duration,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
}

impl RequestSeries {
    fn count(&self, spent: Spent) {
        self.requests.inc();
        self.latencies.observe(spent.took.as_secs_f64());
        for (counter, bytes) in [
            (&self.bytes_in, spent.bytes_in),
            (&self.bytes_out, spent.bytes_out),
        ] {
            if bytes > 0 {
                counter.inc_by(bytes);
            }
        }
    }
}

/// Labels by the addresses of their texts: the same text at another address only costs another entry.
#[derive(PartialEq, Eq, Hash)]
struct SeriesKey {
    metrics: u64,
    texts: [(usize, usize); 5],
    status: u16,
}

impl SeriesKey {
    fn of(metrics: u64, told: Told<'_>) -> Self {
        let texts = [
            told.direction,
            told.route,
            told.service,
            told.peer,
            told.reason,
        ];
        Self {
            metrics,
            texts: texts.map(|text| (text.as_ptr().addr(), text.len())),
            status: told.status,
        }
    }
}

/// Series that a worker keeps handles of. More are looked up anew.
const RESOLVED_MAX: usize = 4096;

thread_local! {
    static RESOLVED: RefCell<Configured<SeriesKey, RequestSeries>> =
        RefCell::default();
}

type Latencies = Family<RouteLabels, Histogram, fn() -> Histogram>;

/// All series of a proxy.
#[derive(Debug)]
pub struct Metrics {
    /// No other instance of the process has it.
    id: u64,
    registry: Mutex<Registry>,
    series: AtomicU64,
    requests: Family<RequestLabels, Counter>,
    latencies: Latencies,
    connections: Family<ListenerLabels, Counter>,
    open: Family<ListenerLabels, Gauge>,
    refused: Family<RefusedLabels, Counter>,
    bytes: Family<BytesLabels, Counter>,
    upstream: Family<UpstreamLabels, Counter>,
    limits: Family<LimitLabels, Counter>,
    evicted: Family<EvictedLabels, Counter>,
    tcp: Family<TcpLabels, Counter>,
    pub(crate) records_lost: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

fn latency_histogram() -> Histogram {
    Histogram::new(LATENCY_BUCKETS_S)
}

impl Metrics {
    /// Fresh counters.
    pub fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let metrics = Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            registry: Mutex::new(Registry::default()),
            series: AtomicU64::new(0),
            requests: Family::default(),
            latencies: Family::new_with_constructor(latency_histogram as fn() -> Histogram),
            connections: Family::default(),
            open: Family::default(),
            refused: Family::default(),
            bytes: Family::default(),
            upstream: Family::default(),
            limits: Family::default(),
            evicted: Family::default(),
            tcp: Family::default(),
            records_lost: Counter::default(),
        };
        metrics.register(|registry| {
            let m = &metrics;
            registry.register("meshgate_requests", "Requests answered", m.requests.clone());
            registry.register(
                "meshgate_request_duration_seconds",
                "From the request head to the end of the answer",
                m.latencies.clone(),
            );
            registry.register(
                "meshgate_connections",
                "Connections accepted",
                m.connections.clone(),
            );
            registry.register(
                "meshgate_connections_open",
                "Connections open now",
                m.open.clone(),
            );
            registry.register(
                "meshgate_connections_refused",
                "Connections closed before a request",
                m.refused.clone(),
            );
            registry.register(
                "meshgate_bytes",
                "Body and tunnel bytes passed on",
                m.bytes.clone(),
            );
            registry.register(
                "meshgate_upstream_events",
                "Connections, retries, ejections and returns of endpoints",
                m.upstream.clone(),
            );
            registry.register(
                "meshgate_rate_limit",
                "Decisions of rate limits",
                m.limits.clone(),
            );
            registry.register(
                "meshgate_rate_limit_buckets_evicted",
                "Buckets of rate limits forgotten to stay within memory",
                m.evicted.clone(),
            );
            registry.register(
                "meshgate_tcp_connections",
                "TCP connections passed on",
                m.tcp.clone(),
            );
            registry.register(
                "meshgate_access_records_lost",
                "Access records dropped because the reader was too slow",
                m.records_lost.clone(),
            );
        });
        metrics
    }

    /// Adds series of the owner's own (configuration generation, certificate expiry).
    pub fn register(&self, add: impl FnOnce(&mut Registry)) {
        add(&mut self.registry.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// The Prometheus text format.
    pub fn render(&self) -> String {
        let mut text = String::new();
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        match encode(&mut text, &registry) {
            Ok(()) => text,
            // Writing into a String does not fail; an encoder that refuses a value must not take the rest along.
            Err(error) => format!("# {error}\n"),
        }
    }

    /// Counts a request. The series of labels that were seen before are found without comparing any text.
    pub(crate) fn request(&self, told: Told<'_>, spent: Spent) {
        let key = SeriesKey::of(self.id, told);
        RESOLVED.with_borrow_mut(|resolved| {
            if let Some(series) = resolved.get(&key) {
                return series.count(spent);
            }
            if resolved.len() >= RESOLVED_MAX {
                resolved.clear();
            }
            let series = self.resolve(told.labels());
            series.count(spent);
            resolved.insert(key, series);
        });
    }

    fn resolve(&self, mut labels: RequestLabels) -> RequestSeries {
        let named = labels.clone();
        let known = self.requests.get(&labels).is_some();
        if !known && self.series.fetch_add(1, Ordering::Relaxed) >= SERIES_MAX {
            labels.route = "other".into();
            labels.service = "other".into();
            labels.peer = "other".into();
        }
        let route = RouteLabels {
            direction: labels.direction,
            service: labels.service.clone(),
        };
        RequestSeries {
            _named: named,
            requests: self.requests.get_or_create(&labels).clone(),
            latencies: self.latencies.get_or_create(&route).clone(),
            bytes_in: self.flow(labels.direction, "in"),
            bytes_out: self.flow(labels.direction, "out"),
        }
    }

    pub(crate) fn accepted(&self, listener: &'static str) {
        let labels = ListenerLabels { listener };
        self.connections.get_or_create(&labels).inc();
        self.open.get_or_create(&labels).inc();
    }

    pub(crate) fn closed(&self, listener: &'static str) {
        self.open.get_or_create(&ListenerLabels { listener }).dec();
    }

    pub(crate) fn refused(&self, listener: &'static str, reason: &'static str) {
        self.refused
            .get_or_create(&RefusedLabels { listener, reason })
            .inc();
    }

    pub(crate) fn bytes(&self, direction: &'static str, flow: &'static str, count: u64) {
        self.flow(direction, flow).inc_by(count);
    }

    fn flow(&self, direction: &'static str, flow: &'static str) -> Counter {
        let labels = BytesLabels { direction, flow };
        self.bytes.get_or_create(&labels).clone()
    }

    pub(crate) fn upstream(&self, service: &Arc<str>, result: &'static str) {
        self.upstream
            .get_or_create(&UpstreamLabels {
                service: service.clone(),
                result,
            })
            .inc();
    }

    pub(crate) fn limit(&self, limit: &Arc<str>, result: &'static str) {
        self.limits
            .get_or_create(&LimitLabels {
                limit: limit.clone(),
                result,
            })
            .inc();
    }

    pub(crate) fn limit_buckets_evicted(&self, limit: &Arc<str>, count: u64) {
        if count > 0 {
            self.evicted
                .get_or_create(&EvictedLabels {
                    limit: limit.clone(),
                })
                .inc_by(count);
        }
    }

    pub(crate) fn tcp(
        &self,
        direction: &'static str,
        service: &Arc<str>,
        peer: &Arc<str>,
        reason: &'static str,
    ) {
        self.tcp
            .get_or_create(&TcpLabels {
                direction,
                service: service.clone(),
                peer: peer.clone(),
                reason,
            })
            .inc();
    }
}
