//! Counters of the push part, in Prometheus' text format.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use meshgate_api::push::{DeltaResponse, node::Role};
use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, text::encode},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};

use crate::{compile::ResourceKind, table::Table, xds::replicas::Replicas};

/// Handles of all counters.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    registry: Arc<Mutex<Registry>>,
    pub(crate) generation: Gauge,
    streams: Family<RoleLabel, Gauge>,
    resources: Family<TypeLabel, Gauge>,
    answers: Family<AnswerLabel, Counter>,
    pushed: Family<TypeLabel, Counter>,
    removed: Family<TypeLabel, Counter>,
    compile: Histogram,
    pub(crate) changes: Counter,
    certificates: Family<CertifyLabel, Counter>,
    pub(crate) admissions: Family<AdmissionLabel, Counter>,
    pub(crate) quota_streams: Gauge,
    pub(crate) quota_granted: Counter,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RoleLabel {
    role: RoleValue,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelValue)]
#[expect(non_camel_case_types, reason = "label values as they are printed")]
enum RoleValue {
    edge,
    sidecar,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TypeLabel {
    r#type: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AnswerLabel {
    answer: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CertifyLabel {
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct AdmissionLabel {
    pub(crate) result: &'static str,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let metrics = Self {
            registry: Arc::default(),
            generation: Gauge::default(),
            streams: Family::default(),
            resources: Family::default(),
            answers: Family::default(),
            pushed: Family::default(),
            removed: Family::default(),
            // 10 µs to 5 s.
            compile: Histogram::new(exponential_buckets(0.000_01, 2.0, 20)),
            changes: Counter::default(),
            certificates: Family::default(),
            admissions: Family::default(),
            quota_streams: Gauge::default(),
            quota_granted: Counter::default(),
        };
        metrics.register();
        metrics
    }

    fn register(&self) {
        let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        let registry = registry.sub_registry_with_prefix("meshgate_push");
        registry.register(
            "generation",
            "Generation of the newest configuration",
            self.generation.clone(),
        );
        registry.register("streams", "Connected proxies", self.streams.clone());
        registry.register("resources", "Compiled resources", self.resources.clone());
        registry.register(
            "answers",
            "Answers of proxies to pushed configuration",
            self.answers.clone(),
        );
        registry.register(
            "pushed_resources",
            "Resources sent to proxies",
            self.pushed.clone(),
        );
        registry.register(
            "removed_resources",
            "Removals sent to proxies",
            self.removed.clone(),
        );
        registry.register(
            "compile_seconds",
            "Time to compile a batch of changes",
            self.compile.clone(),
        );
        registry.register(
            "changes",
            "Changes of objects taken in",
            self.changes.clone(),
        );
        registry.register(
            "certificates",
            "Requests for workload certificates",
            self.certificates.clone(),
        );
        registry.register(
            "admissions",
            "Pods that the injector was asked about",
            self.admissions.clone(),
        );
        registry.register(
            "quota_streams",
            "Replicas that lease quotas",
            self.quota_streams.clone(),
        );
        registry.register(
            "quota_granted_tokens",
            "Tokens of global quotas leased",
            self.quota_granted.clone(),
        );
    }

    /// The text that Prometheus scrapes.
    pub(crate) fn text(&self, table: &Table, replicas: &Replicas) -> String {
        // Counted when asked for, not with every change.
        for (kind, name) in [
            (ResourceKind::EdgeHost, "EdgeHost"),
            (ResourceKind::Service, "Service"),
            (ResourceKind::Certificate, "Certificate"),
            (ResourceKind::Workload, "Workload"),
        ] {
            let label = TypeLabel {
                r#type: name.to_owned(),
            };
            self.resources
                .get_or_create(&label)
                .set(gauge(table.read().count(kind)));
        }
        for (of, role) in [
            (Role::Edge, RoleValue::edge),
            (Role::Sidecar, RoleValue::sidecar),
        ] {
            let count = replicas.count_of(of);
            self.streams
                .get_or_create(&RoleLabel { role })
                .set(gauge(count));
        }
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::new();
        // Writing into a String cannot fail.
        let _ = encode(&mut text, &registry);
        text
    }

    pub(crate) fn sent(&self, response: &DeltaResponse) {
        let label = TypeLabel {
            r#type: response
                .type_url
                .rsplit('.')
                .next()
                .unwrap_or_default()
                .to_owned(),
        };
        self.pushed
            .get_or_create(&label)
            .inc_by(response.resources.len() as u64);
        self.removed
            .get_or_create(&label)
            .inc_by(response.removed.len() as u64);
    }

    pub(crate) fn answered(&self, accepted: bool) {
        let answer = if accepted { "ack" } else { "nack" };
        self.answers.get_or_create(&AnswerLabel { answer }).inc();
    }

    pub(crate) fn compiled(&self, took: Duration, changes: usize) {
        self.compile.observe(took.as_secs_f64());
        self.changes.inc_by(changes as u64);
    }

    pub(crate) fn certified(&self, result: &'static str) {
        self.certificates
            .get_or_create(&CertifyLabel { result })
            .inc();
    }
}

fn gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
