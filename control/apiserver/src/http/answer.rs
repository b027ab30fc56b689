//! Answers: objects, Status, plain text, in the format that was asked for.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WARNING};
use http::{Response, StatusCode};
use meshgate_schema::{Failure, Media, Registry};
use serde_json::Value;

use super::body::{Body, whole};
use super::media::Format;
use crate::objects::write_value;

/// Bytes of all Warning headers of an answer, as in Kubernetes: more would be cut by proxies.
const WARNING_BYTES_MAX: usize = 4096;
const NOSNIFF: (HeaderName, HeaderValue) = (
    http::header::X_CONTENT_TYPE_OPTIONS,
    HeaderValue::from_static("nosniff"),
);

/// An answer with its body's type.
pub(crate) fn bytes(
    code: u16,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Response<Body> {
    let mut response = Response::new(whole(body));
    *response.status_mut() =
        StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// A value in the asked-for encoding.
pub(crate) fn value(
    code: u16,
    format: Format,
    registry: &Registry,
    value: &Value,
) -> Response<Body> {
    let (content_type, body) = encode(format, registry, value);
    bytes(code, content_type, body)
}

/// A value's bytes; protobuf falls back to JSON for what has no such form.
pub(crate) fn encode(
    format: Format,
    registry: &Registry,
    value: &Value,
) -> (&'static str, Vec<u8>) {
    match format.encoding {
        Media::Protobuf => {
            if let Some(body) = registry.encode_protobuf(value) {
                return (format.content_type(), body);
            }
        }
        Media::Yaml => return (format.content_type(), yaml(value)),
        Media::Json => {}
    }
    (Format::JSON.content_type(), json(value, format.pretty))
}

/// JSON with a newline at its end, indented if people read it.
pub(crate) fn json(value: &Value, pretty: bool) -> Vec<u8> {
    let mut body = Vec::with_capacity(512);
    if pretty {
        serde_json::to_writer_pretty(&mut body, value)
            .expect("a JSON value is always serialisable to memory");
    } else {
        write_value(&mut body, value);
    }
    body.push(b'\n');
    body
}

fn yaml(value: &Value) -> Vec<u8> {
    let text = serde_norway::to_string(&sorted(value));
    text.unwrap_or_else(|error| format!("# not representable as YAML: {error}\n"))
        .into_bytes()
}

/// YAML is for people, who look for a field by its name.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut fields: Vec<_> = map.iter().collect();
            fields.sort_by_key(|(name, _)| *name);
            Value::Object(
                fields
                    .into_iter()
                    .map(|(name, value)| (name.clone(), sorted(value)))
                    .collect(),
            )
        }
        Value::Array(items) => Value::Array(items.iter().map(sorted).collect()),
        other => other.clone(),
    }
}

/// A failure as a `metav1.Status`.
pub(crate) fn failure(format: Format, registry: &Registry, failure: &Failure) -> Response<Body> {
    let mut response = value(failure.code, format, registry, &failure.to_status());
    let retry = failure
        .details
        .as_ref()
        .and_then(|details| details.get("retryAfterSeconds"));
    if let Some(seconds) = retry.and_then(Value::as_u64) {
        response
            .headers_mut()
            .insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// Plain text, as health endpoints answer.
pub(crate) fn text(code: u16, body: impl Into<String>) -> Response<Body> {
    let mut response = bytes(code, "text/plain; charset=utf-8", body.into());
    let (name, value) = NOSNIFF;
    response.headers_mut().insert(name, value);
    response
}

/// The answer to a path that nobody serves.
pub(crate) fn no_such_page() -> Response<Body> {
    text(404, "404 page not found\n")
}

/// Warning headers of an answer: some clients read no more than a hundred headers in all.
const WARNINGS_MAX: usize = 50;

/// Adds `Warning: 299` headers; each text once, and not more than fits.
pub(crate) fn warn(response: &mut Response<Body>, warnings: &[String]) {
    let mut bytes = 0;
    for (at, warning) in warnings.iter().enumerate().take(WARNINGS_MAX) {
        if warnings[..at].contains(warning) {
            continue;
        }
        let header = format!("299 - \"{}\"", quoted(warning));
        bytes += header.len();
        if bytes > WARNING_BYTES_MAX {
            return;
        }
        if let Ok(header) = HeaderValue::try_from(header) {
            response.headers_mut().append(WARNING, header);
        }
    }
}

fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars().filter(|c| !c.is_control()) {
        if matches!(c, '"' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}
