//! Spans in OpenTelemetry's words: its semantic conventions for HTTP, version 1.

use std::net::SocketAddr;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};

use super::span::{Finished, Outcome, Try};
use crate::failure::Reason;
use crate::upstream::Wire;

/// `SpanFlags`: the two lowest bits of the second octet say whether the parent is of another process, and that this is
/// known.
const KNOWS_REMOTE: u32 = 0x100;
const IS_REMOTE: u32 = 0x200;
const SAMPLED: u32 = 1;

/// All of one call.
pub(super) fn request(resource: &Resource, spans: Vec<Span>) -> ExportTraceServiceRequest {
    let scope = InstrumentationScope {
        name: "meshgate".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        ..InstrumentationScope::default()
    };
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(resource.clone()),
            scope_spans: vec![ScopeSpans {
                scope: Some(scope),
                spans,
                schema_url: String::new(),
            }],
            schema_url: String::new(),
        }],
    }
}

/// Who tells.
pub(super) fn resource(attributes: &[(String, String)]) -> Resource {
    let mut said = Attributes::default();
    for (name, value) in attributes {
        said.text(name, value);
    }
    Resource {
        attributes: said.0,
        ..Resource::default()
    }
}

/// A request's span, and one for each of its attempts.
pub(super) fn spans(finished: &Finished) -> impl Iterator<Item = Span> {
    let tries = finished.trace.tries.iter().enumerate();
    let clients = tries.map(|(index, attempt)| client(finished, index, attempt));
    std::iter::once(server(finished)).chain(clients)
}

fn server(finished: &Finished) -> Span {
    let (line, trace) = (&finished.line, &finished.trace);
    let mut said = Attributes::default();
    said.method(line.method());
    said.text("url.scheme", trace.scheme);
    // Without the query: queries carry secrets.
    said.text("url.path", line.path());
    said.authority(line.host());
    said.text("client.address", &line.client.ip().to_string());
    said.number("client.port", line.client.port().into());
    said.text(
        "network.protocol.version",
        line.protocol.trim_start_matches("HTTP/"),
    );
    said.text("user_agent.original", &trace.user_agent);
    said.list("http.request.header.x-request-id", line.request_id());
    said.number("http.request.body.size", signed(line.bytes_in));
    said.number("http.response.body.size", signed(line.bytes_out));
    said.text("meshgate.direction", line.direction);
    said.text("meshgate.peer", &line.peer);
    said.text("meshgate.route", &line.route);
    said.text("meshgate.service", &line.service);
    said.text("meshgate.reason", line.reason);
    if line.status != 0 {
        said.number("http.response.status_code", line.status.into());
    }
    // What the client did wrong is no error of the server's.
    let is_error = match line.status {
        0 | 500.. => true,
        status => status < 400 && !line.reason.is_empty(),
    };
    let status = is_error.then(|| {
        let by_status = line.status.to_string();
        let error = [line.reason, &by_status]
            .into_iter()
            .find(|e| !e.is_empty());
        said.error(error.unwrap_or_default(), &line.detail)
    });
    Span {
        span_id: id(trace.own.span),
        parent_span_id: trace.parent.map_or_else(Vec::new, |parent| id(parent.span)),
        flags: SAMPLED | KNOWS_REMOTE | trace.parent.map_or(0, |_| IS_REMOTE),
        kind: SpanKind::Server.into(),
        start_time_unix_nano: finished.unix_nanos(finished.started),
        end_time_unix_nano: finished.unix_nanos(finished.ended),
        attributes: said.0,
        status,
        ..span(finished)
    }
}

fn client(finished: &Finished, index: usize, attempt: &Try) -> Span {
    let line = &finished.line;
    let is_last = index + 1 == finished.trace.tries.len();
    let mut said = Attributes::default();
    said.method(line.method());
    if !line.host().is_empty() {
        said.text(
            "url.full",
            &format!("http://{}{}", line.host(), line.path()),
        );
    }
    said.authority(line.host());
    said.peer(attempt.endpoint);
    said.text(
        "network.protocol.version",
        match attempt.wire {
            Wire::Http1 => "1.1",
            Wire::Http2 | Wire::Mesh => "2",
        },
    );
    if index > 0 {
        said.number("http.request.resend_count", index as i64);
    }
    said.text("meshgate.pod", &attempt.pod);
    // The last answer lasts as long as its body.
    let (ended, outcome) = match attempt.outcome {
        Some((_, outcome @ Outcome::Answered(_))) if is_last => (finished.ended, Some(outcome)),
        Some((ended, outcome)) => (ended, Some(outcome)),
        None => (finished.ended, None),
    };
    let was_cut = is_last && line.reason == Reason::UpstreamReset.as_str();
    let status = match outcome {
        Some(Outcome::Answered(code)) => {
            said.number("http.response.status_code", code.into());
            match code {
                400.. => Some(said.error(&code.to_string(), "")),
                _ => was_cut.then(|| said.error(line.reason, &line.detail)),
            }
        }
        Some(Outcome::Failed(reason)) => Some(said.error(reason.as_str(), "")),
        None => Some(said.error(line.reason, &line.detail)),
    };
    Span {
        span_id: id(attempt.span),
        parent_span_id: id(finished.trace.own.span),
        flags: SAMPLED | KNOWS_REMOTE,
        kind: SpanKind::Client.into(),
        start_time_unix_nano: finished.unix_nanos(attempt.started),
        end_time_unix_nano: finished.unix_nanos(ended),
        attributes: said.0,
        status,
        ..span(finished)
    }
}

/// What all spans of a request share.
fn span(finished: &Finished) -> Span {
    let name = known_method(finished.line.method()).unwrap_or("HTTP");
    Span {
        trace_id: finished.trace.own.trace_id.to_be_bytes().into(),
        trace_state: finished.trace.state.to_string(),
        name: name.into(),
        ..Span::default()
    }
}

fn id(span: u64) -> Vec<u8> {
    span.to_be_bytes().into()
}

fn signed(number: u64) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}

/// Those of RFC 9110 and PATCH: others would be names without number.
fn known_method(method: &str) -> Option<&str> {
    const KNOWN: [&str; 9] = [
        "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH",
    ];
    KNOWN.contains(&method).then_some(method)
}

/// Attributes of a span; what is empty is not said.
#[derive(Default)]
struct Attributes(Vec<KeyValue>);

impl Attributes {
    fn add(&mut self, name: &str, value: Value) {
        self.0.push(KeyValue {
            key: name.into(),
            value: Some(AnyValue { value: Some(value) }),
            ..KeyValue::default()
        });
    }

    fn text(&mut self, name: &str, text: &str) {
        if !text.is_empty() {
            self.add(name, Value::StringValue(text.into()));
        }
    }

    fn number(&mut self, name: &str, number: i64) {
        self.add(name, Value::IntValue(number));
    }

    /// A list of one.
    fn list(&mut self, name: &str, text: &str) {
        if !text.is_empty() {
            let value = Some(Value::StringValue(text.into()));
            let values = vec![AnyValue { value }];
            self.add(name, Value::ArrayValue(ArrayValue { values }));
        }
    }

    fn method(&mut self, method: &str) {
        match known_method(method) {
            Some(method) => self.text("http.request.method", method),
            None => {
                self.text("http.request.method", "_OTHER");
                self.text("http.request.method_original", method);
            }
        }
    }

    fn authority(&mut self, authority: &str) {
        let port = authority.rsplit_once(':').and_then(|(host, port)| {
            let port: u16 = port.parse().ok()?;
            Some((host, port))
        });
        let host = port.map_or(authority, |(host, _)| host);
        self.text("server.address", host.trim_matches(['[', ']']));
        if let Some((_, port)) = port {
            self.number("server.port", port.into());
        }
    }

    fn peer(&mut self, address: SocketAddr) {
        self.text("network.peer.address", &address.ip().to_string());
        self.number("network.peer.port", address.port().into());
    }

    fn error(&mut self, kind: &str, message: &str) -> Status {
        self.text("error.type", kind);
        Status {
            code: StatusCode::Error.into(),
            message: message.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities() {
        fn check(authority: &str, host: &str, port: Option<i64>) {
            let mut expected = Attributes::default();
            expected.text("server.address", host);
            if let Some(port) = port {
                expected.number("server.port", port);
            }
            let mut said = Attributes::default();
            said.authority(authority);
            assert_eq!(said.0, expected.0, "{authority}");
        }
        check("a.test", "a.test", None);
        check("a.test:80", "a.test", Some(80));
        check("[::1]", "::1", None);
        check("[::1]:8080", "::1", Some(8080));
        check("", "", None);
    }
}
