//! The one thread that sends spans. Nothing that happens to it reaches a request.

use std::sync::Arc;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::resource::v1::Resource;
use tokio_util::sync::CancellationToken;
use tonic::metadata::MetadataMap;
use tonic::{Code, Request, Status};

use super::collector::Client;
use super::counts::Counts;
use super::settings::TraceOptions;
use super::tray::Trays;
use super::{TraceParent, otlp, span::Finished};
use crate::clock::chance;
use crate::push::Backoff;

/// What is left when the proxy ends must be with the collector by then: pods are killed 30 s after they are asked to end,
/// and the drain takes 25 of them.
const FLUSH_MAX: Duration = Duration::from_secs(3);
const BACKOFF_MIN: Duration = Duration::from_millis(500);
const BACKOFF_MAX: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(super) struct Exporter {
    options: TraceOptions,
    mark: Option<u32>,
    trays: Arc<Trays>,
    counts: Counts,
    resource: Resource,
    headers: MetadataMap,
    client: Option<Client>,
    /// Spans that were taken from the trays and not delivered yet.
    held: usize,
    /// The last call failed, and the log says so.
    is_failing: bool,
}

/// Why a call failed.
struct Problem {
    why: String,
    /// It may go better another time.
    passes: bool,
}

impl Exporter {
    pub(super) fn new(
        options: TraceOptions,
        mark: Option<u32>,
        trays: Arc<Trays>,
        counts: Counts,
    ) -> Self {
        Self {
            resource: otlp::resource(&options.resource),
            headers: unsampled(options.headers.clone()),
            options,
            mark,
            trays,
            counts,
            client: None,
            held: 0,
            is_failing: false,
        }
    }

    /// The life of the thread: until `closing`, and a moment for what is left then.
    pub(super) fn work(mut self, closing: CancellationToken) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        match runtime {
            Ok(runtime) => runtime.block_on(async {
                let too_late = async {
                    closing.cancelled().await;
                    tokio::time::sleep(FLUSH_MAX).await;
                };
                tokio::select! {
                    biased;
                    () = self.send_all(&closing) => {}
                    () = too_late => {}
                }
            }),
            Err(error) => tracing::error!(%error, "cannot export spans"),
        }
        let left: usize = self.trays.empty().iter().map(Finished::spans).sum();
        self.counts.dropped("shutdown", left + self.held);
    }

    async fn send_all(&mut self, closing: &CancellationToken) {
        loop {
            let gathered = async {
                self.trays.some().await;
                // Company, or the end of patience: both are a reason to go.
                let _ = tokio::time::timeout(self.options.delay, self.trays.enough()).await;
            };
            closing.run_until_cancelled(gathered).await;
            let finished = self.trays.empty();
            if finished.is_empty() && closing.is_cancelled() {
                return;
            }
            self.held = finished.iter().map(Finished::spans).sum();
            let mut spans = finished.iter().flat_map(otlp::spans).peekable();
            while spans.peek().is_some() {
                let batch = spans.by_ref().take(self.options.batch_spans_max).collect();
                let request = otlp::request(&self.resource, batch);
                self.deliver(request, closing).await;
            }
        }
    }

    /// Until the collector has it, or has refused it.
    async fn deliver(&mut self, request: ExportTraceServiceRequest, closing: &CancellationToken) {
        let spans = request.resource_spans.iter().flat_map(|r| &r.scope_spans);
        let spans: usize = spans.map(|scope| scope.spans.len()).sum();
        let mut backoff = Backoff::new(BACKOFF_MIN, BACKOFF_MAX);
        let (exported, dropped) = loop {
            let problem = match self.send(request.clone()).await {
                Ok(rejected) => break (spans - rejected.min(spans), ("refused", rejected)),
                Err(problem) => problem,
            };
            self.failing(&problem.why);
            if !problem.passes {
                break (0, ("refused", spans));
            }
            let wait = backoff.failed((chance() >> 11) as f64 / (1_u64 << 53) as f64);
            let waited = closing.run_until_cancelled(tokio::time::sleep(wait)).await;
            if waited.is_none() {
                break (0, ("shutdown", spans));
            }
        };
        self.counts.exported(exported);
        let (reason, lost) = dropped;
        self.counts.dropped(reason, lost);
        self.held -= spans;
    }

    /// One call; how many spans the collector did not want.
    async fn send(&mut self, message: ExportTraceServiceRequest) -> Result<usize, Problem> {
        let mut request = Request::new(message);
        *request.metadata_mut() = self.headers.clone();
        let patience = self.options.timeout;
        let client = self.client().map_err(Problem::passing)?;
        let answer = tokio::time::timeout(patience, client.export(request))
            .await
            .map_err(|_| Problem::passing(format!("no answer within {patience:?}")))?
            .map_err(|status| Problem::of(&status))?;
        match answer.into_inner().partial_success {
            Some(part) if part.rejected_spans > 0 => {
                self.failing(&format!("it refuses some: {}", part.error_message));
                Ok(part.rejected_spans.try_into().unwrap_or_default())
            }
            _ => {
                self.working();
                Ok(0)
            }
        }
    }

    fn client(&mut self) -> Result<&mut Client, String> {
        if self.client.is_none() {
            let ca = self.options.certificate.as_ref();
            let client = self.options.collector.client(ca, self.mark);
            self.client = Some(client.map_err(|error| chain(&error))?);
        }
        self.client.as_mut().ok_or_else(String::new)
    }

    fn failing(&mut self, why: &str) {
        if !std::mem::replace(&mut self.is_failing, true) {
            let collector = &self.options.collector;
            tracing::warn!(%collector, why, "spans are not taken; what comes meanwhile may be lost");
        }
    }

    fn working(&mut self) {
        if std::mem::take(&mut self.is_failing) {
            let collector = &self.options.collector;
            tracing::info!(%collector, "spans are taken again");
        }
    }
}

impl Problem {
    fn passing(why: String) -> Self {
        Self { why, passes: true }
    }

    /// By OTLP's list of what to try again.
    fn of(status: &Status) -> Self {
        let passes = matches!(
            status.code(),
            Code::Cancelled
                | Code::DeadlineExceeded
                | Code::Aborted
                | Code::OutOfRange
                | Code::Unavailable
                | Code::DataLoss
        );
        Self {
            why: chain(status),
            passes,
        }
    }
}

/// With the word that nobody on the way shall make spans of this: a proxy beside the collector would have some to send for
/// each call, and so for ever.
fn unsampled(mut headers: MetadataMap) -> MetadataMap {
    let own = TraceParent::new([chance(), chance(), chance()], false);
    if let Ok(value) = own.to_string().parse() {
        headers.insert("traceparent", value);
    }
    headers
}

/// An error with what caused it.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let all: Vec<String> = causes.map(ToString::to_string).collect();
    all.join(": ")
}
