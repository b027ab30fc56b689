//! A collector of spans: OpenTelemetry's own service, that takes them, refuses them, or says nothing.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use meshgate_proxy::EngineOptions;
use meshgate_proxy::trace::TraceOptions;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1 as otlp;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

/// What a collector does with a call.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    Take,
    Refuse,
    Hang,
}

pub(crate) struct Collector {
    pub(crate) address: SocketAddr,
    service: Service,
    server: tokio::task::JoinHandle<()>,
}

#[derive(Clone)]
struct Service {
    manner: Arc<Mutex<Manner>>,
    spans: Arc<Mutex<Vec<Span>>>,
}

/// A span in readable form.
#[derive(Clone, Debug)]
pub(crate) struct Span {
    pub(crate) trace: String,
    pub(crate) id: String,
    /// Empty when there is none.
    pub(crate) parent: String,
    pub(crate) state: String,
    pub(crate) name: String,
    pub(crate) kind: &'static str,
    pub(crate) flags: u32,
    pub(crate) is_error: bool,
    pub(crate) times: (u64, u64),
    /// `service.name` of who told.
    pub(crate) service: String,
    pub(crate) attributes: BTreeMap<String, String>,
}

impl Span {
    /// An attribute; empty when it is not said.
    pub(crate) fn said(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Collector {
    pub(crate) async fn start(manner: Manner) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), manner).await
    }

    pub(crate) async fn start_at(address: SocketAddr, manner: Manner) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = Service {
            manner: Arc::new(Mutex::new(manner)),
            spans: Arc::default(),
        };
        let server = tonic::transport::Server::builder()
            .add_service(TraceServiceServer::new(service.clone()))
            .serve_with_incoming(TcpListenerStream::new(listener));
        Self {
            address,
            service,
            server: tokio::spawn(async move { server.await.unwrap() }),
        }
    }

    pub(crate) fn behave(&self, manner: Manner) {
        *self.service.manner.lock().unwrap() = manner;
    }

    /// All that came so far.
    pub(crate) fn spans(&self) -> Vec<Span> {
        self.service.spans.lock().unwrap().clone()
    }
}

/// Spans to there, of everything that is not decided elsewhere, and sent only when a proxy ends.
pub(crate) fn to(collector: SocketAddr) -> TraceOptions {
    let collector = format!("http://{collector}").parse().unwrap();
    TraceOptions {
        delay: std::time::Duration::from_secs(3600),
        ..TraceOptions::new(collector, "proxy")
    }
}

/// An engine that takes a client's word for where a request came from.
pub(crate) fn traced(trace: TraceOptions) -> EngineOptions {
    EngineOptions {
        trace: Some(trace),
        trusted_peers: vec!["127.0.0.0/8".parse().unwrap()],
        ..EngineOptions::default()
    }
}

#[tonic::async_trait]
impl TraceService for Service {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let parent = request.metadata().get("traceparent").unwrap();
        let parent = parent.to_str().unwrap();
        assert!(parent.ends_with("-00"), "spans of spans: {parent}");
        let manner = *self.manner.lock().unwrap();
        match manner {
            Manner::Take => {}
            Manner::Refuse => return Err(Status::invalid_argument("not these")),
            Manner::Hang => std::future::pending().await,
        }
        for told in request.into_inner().resource_spans {
            let resource = told.resource.unwrap_or_default();
            let service = attributes(&resource.attributes)
                .remove("service.name")
                .unwrap_or_default();
            let spans = told.scope_spans.into_iter().flat_map(|scope| scope.spans);
            let spans = spans.map(|span| read(&span, &service));
            self.spans.lock().unwrap().extend(spans);
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

fn read(span: &otlp::Span, service: &str) -> Span {
    let hexadecimal = |id: &[u8]| id.iter().map(|byte| format!("{byte:02x}")).collect();
    Span {
        trace: hexadecimal(&span.trace_id),
        id: hexadecimal(&span.span_id),
        parent: hexadecimal(&span.parent_span_id),
        state: span.trace_state.clone(),
        name: span.name.clone(),
        kind: match span.kind() {
            otlp::span::SpanKind::Server => "server",
            otlp::span::SpanKind::Client => "client",
            _ => "other",
        },
        flags: span.flags,
        is_error: span
            .status
            .as_ref()
            .is_some_and(|status| status.code() == otlp::status::StatusCode::Error),
        times: (span.start_time_unix_nano, span.end_time_unix_nano),
        service: service.into(),
        attributes: attributes(&span.attributes),
    }
}

fn attributes(said: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |value: &Value| match value {
        Value::StringValue(text) => text.clone(),
        Value::IntValue(number) => number.to_string(),
        other => format!("{other:?}"),
    };
    let pairs = said.iter().map(|attribute| {
        let value = attribute.value.as_ref().and_then(|any| any.value.as_ref());
        (attribute.key.clone(), value.map(text).unwrap_or_default())
    });
    pairs.collect()
}
