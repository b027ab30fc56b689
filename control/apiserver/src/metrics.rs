//! What the server counts.

use std::sync::atomic::AtomicI64;
use std::time::Duration;

use meshgate_schema::Kind;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Upper bounds of request times in seconds: from served-from-memory to the request timeout.
const REQUEST_BUCKETS_S: [f64; 13] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 15.0, 60.0,
];
/// Upper bounds of store writes in seconds: one fsync, several, a slow disk.
const WRITE_BUCKETS_S: [f64; 10] = [
    0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.0,
];
/// Upper bounds of answers in bytes.
const SIZE_BUCKETS: [f64; 7] = [1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9];

/// Labels of a finished request; names of objects are not among them, so the series are bounded by the kinds.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct RequestLabels {
    pub(crate) verb: &'static str,
    pub(crate) dry_run: &'static str,
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) resource: String,
    pub(crate) subresource: String,
    pub(crate) scope: &'static str,
    pub(crate) component: &'static str,
    pub(crate) code: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TimeLabels {
    verb: &'static str,
    group: String,
    version: String,
    resource: String,
    subresource: String,
    scope: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabels {
    group: String,
    version: String,
    resource: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WebhookLabels {
    name: String,
    rejected: &'static str,
}

type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

/// Every metric of the server.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    durations: Histograms<TimeLabels>,
    sizes: Histograms<KindLabels>,
    writes: Histogram,
    watches: Family<KindLabels, Gauge>,
    watch_events: Family<KindLabels, Counter>,
    webhooks: Histograms<WebhookLabels>,
}

impl Metrics {
    pub(crate) fn new() -> Metrics {
        let mut registry = Registry::default();
        let metrics = Metrics {
            requests: Family::default(),
            durations: Family::new_with_constructor(|| Histogram::new(REQUEST_BUCKETS_S)),
            sizes: Family::new_with_constructor(|| Histogram::new(SIZE_BUCKETS)),
            writes: Histogram::new(WRITE_BUCKETS_S),
            watches: Family::default(),
            watch_events: Family::default(),
            webhooks: Family::new_with_constructor(|| Histogram::new(REQUEST_BUCKETS_S)),
            registry: Registry::default(),
        };
        registry.register(
            "apiserver_request",
            "Finished requests",
            metrics.requests.clone(),
        );
        registry.register(
            "apiserver_request_duration_seconds",
            "Time to the head of an answer",
            metrics.durations.clone(),
        );
        registry.register(
            "apiserver_response_sizes",
            "Bytes of answers",
            metrics.sizes.clone(),
        );
        registry.register(
            "apiserver_longrunning_requests",
            "Watches and log streams under way",
            metrics.watches.clone(),
        );
        registry.register(
            "apiserver_watch_events",
            "Events sent to watchers",
            metrics.watch_events.clone(),
        );
        registry.register(
            "meshgate_store_write_duration_seconds",
            "Time of a durable write",
            metrics.writes.clone(),
        );
        registry.register(
            "apiserver_admission_webhook_admission_duration_seconds",
            "Time of a webhook's answer",
            metrics.webhooks.clone(),
        );
        Metrics {
            registry,
            ..metrics
        }
    }

    /// A request was answered.
    pub(crate) fn answered(&self, labels: RequestLabels, took: Duration, bytes: Option<u64>) {
        let times = TimeLabels {
            verb: labels.verb,
            group: labels.group.clone(),
            version: labels.version.clone(),
            resource: labels.resource.clone(),
            subresource: labels.subresource.clone(),
            scope: labels.scope,
        };
        if let Some(bytes) = bytes {
            let kind = KindLabels {
                group: labels.group.clone(),
                version: labels.version.clone(),
                resource: labels.resource.clone(),
            };
            self.sizes.get_or_create(&kind).observe(bytes as f64);
        }
        self.durations
            .get_or_create(&times)
            .observe(took.as_secs_f64());
        self.requests.get_or_create(&labels).inc();
    }

    pub(crate) fn store_write(&self, took: Duration) {
        self.writes.observe(took.as_secs_f64());
    }

    pub(crate) fn webhook_called(&self, name: &str, took: Duration, answered: bool) {
        let labels = WebhookLabels {
            name: name.to_owned(),
            rejected: if answered { "false" } else { "true" },
        };
        self.webhooks
            .get_or_create(&labels)
            .observe(took.as_secs_f64());
    }

    /// A watch begins; what is returned counts its events and its end.
    pub(crate) fn watching(&self, kind: &Kind) -> Watching {
        let labels = KindLabels {
            group: kind.group().to_owned(),
            version: kind.version().to_owned(),
            resource: kind.plural().to_owned(),
        };
        let open = self.watches.get_or_create_owned(&labels);
        open.inc();
        Watching {
            open,
            events: self.watch_events.get_or_create_owned(&labels),
        }
    }

    /// The text of `/metrics`, with what is measured only when asked for.
    pub(crate) fn encode(&self, now: &Now) -> String {
        let mut moment = Registry::default();
        let in_flight = Family::<InFlight, Gauge>::default();
        for (request_kind, count) in [("readOnly", now.in_flight.0), ("mutating", now.in_flight.1)]
        {
            in_flight
                .get_or_create(&InFlight { request_kind })
                .set(count as i64);
        }
        moment.register(
            "apiserver_current_inflight_requests",
            "Requests under way",
            in_flight,
        );
        let objects = Family::<Objects, Gauge>::default();
        for (group, resource, count) in &now.objects {
            let labels = Objects {
                group: group.clone(),
                resource: resource.clone(),
            };
            objects.get_or_create(&labels).set(*count as i64);
        }
        moment.register(
            "apiserver_resource_objects",
            "Stored objects",
            objects.clone(),
        );
        moment.register(
            "apiserver_storage_objects",
            "Stored objects, under the metric's older name",
            objects,
        );
        let resident = Gauge::<i64, AtomicI64>::default();
        resident.set(resident_bytes().unwrap_or(0));
        moment.register(
            "process_resident_memory_bytes",
            "Resident memory of this process",
            resident,
        );
        let mut text = String::new();
        for registry in [&self.registry, &moment] {
            // Writing to a String cannot fail; a text cut short would be noticed by its reader.
            if prometheus_client::encoding::text::encode(&mut text, registry).is_err() {
                break;
            }
            if let Some(body) = text.strip_suffix("# EOF\n") {
                text.truncate(body.len());
            }
        }
        text
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct InFlight {
    request_kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Objects {
    group: String,
    resource: String,
}

/// Measured at the moment of asking.
#[derive(Debug)]
pub(crate) struct Now {
    /// Reading and writing requests under way.
    pub(crate) in_flight: (usize, usize),
    /// Group, resource, objects.
    pub(crate) objects: Vec<(String, String, usize)>,
}

/// Resident memory as the kernel counts it.
fn resident_bytes() -> Option<i64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: i64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kib * 1024)
}

/// One watch under way.
#[derive(Debug)]
pub(crate) struct Watching {
    open: Gauge,
    events: Counter,
}

impl Watching {
    pub(crate) fn event(&self) {
        self.events.inc();
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.open.dec();
    }
}
