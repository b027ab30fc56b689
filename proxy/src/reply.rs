//! Answers that the proxy makes itself.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use serde_json::json;

use crate::body::ResponseBody;
use crate::failure::{Failure, Limited, Reason};
use crate::head::{Response, is_grpc};

static MESHGATE_REASON: HeaderName = HeaderName::from_static("meshgate-reason");
static RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
static RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
static GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
static GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// How a client wants to be told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Manner {
    Text,
    Json,
    Grpc,
}

impl Manner {
    /// From the request's fields.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        if is_grpc(headers) {
            return Self::Grpc;
        }
        let wants_json = headers
            .get_all(header::ACCEPT)
            .iter()
            .any(|accept| accept.as_bytes().windows(4).any(|part| part == b"json"));
        if wants_json { Self::Json } else { Self::Text }
    }
}

/// The answer to a request that failed.
pub(crate) fn to_failure(failure: &Failure, manner: Manner) -> Response {
    let mut headers = HeaderMap::with_capacity(8);
    headers.insert(&MESHGATE_REASON, field(&failure.to_string()));
    if let Some(limited) = &failure.limited {
        add_limit_fields(&mut headers, limited);
    }
    if closes(failure.reason) {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    if failure.reason == Reason::MethodNotAllowed {
        let allowed = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
        headers.insert(header::ALLOW, allowed);
    }
    let status = failure.status();
    if manner == Manner::Grpc {
        return grpc(failure, headers);
    }
    let (kind, body) = match manner {
        Manner::Json => {
            let body = json!({
                "status": status.as_u16(),
                "reason": failure.reason.as_str(),
                "detail": failure.detail,
            });
            ("application/json", format!("{body}\n"))
        }
        _ => ("text/plain; charset=utf-8", format!("{failure}\n")),
    };
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    Response {
        status,
        headers,
        body: ResponseBody::text(body),
    }
}

/// A trailers-only reply: gRPC clients look at nothing else.
fn grpc(failure: &Failure, mut headers: HeaderMap) -> Response {
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/grpc"),
    );
    headers.insert(&GRPC_STATUS, HeaderValue::from(grpc_status(failure.reason)));
    headers.insert(&GRPC_MESSAGE, field(&percent_encoded(&failure.to_string())));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(0));
    Response {
        status: StatusCode::OK,
        headers,
        body: ResponseBody::empty(),
    }
}

/// Codes as in gRPC's own mapping where it has one.
fn grpc_status(reason: Reason) -> u16 {
    match reason.status().as_u16() {
        408 | 504 => 4,
        403 => 7,
        404 | 405 => 12,
        413 | 429 => 8,
        502 | 503 => 14,
        _ => 13,
    }
}

fn percent_encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// draft-ietf-httpapi-ratelimit-headers-11: both fields are lists of named items with integer parameters.
fn add_limit_fields(headers: &mut HeaderMap, limited: &Limited) {
    let seconds = |duration: std::time::Duration| {
        let whole = duration.as_secs();
        (whole + u64::from(duration.subsec_nanos() > 0)).max(1)
    };
    let name: String = limited
        .name
        .chars()
        .filter(|c| matches!(c, ' '..='~') && !matches!(c, '"' | '\\'))
        .collect();
    let retry_after = seconds(limited.retry_after);
    headers.insert(header::RETRY_AFTER, HeaderValue::from(retry_after));
    let window = seconds(limited.window);
    let policy = format!("\"{name}\";q={};w={window}", limited.quota);
    headers.insert(&RATE_LIMIT_POLICY, field(&policy));
    headers.insert(
        &RATE_LIMIT,
        field(&format!("\"{name}\";r=0;t={retry_after}")),
    );
}

/// After these nobody knows where the next request would begin, or the client shall not send the rest.
fn closes(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::BadRequest
            | Reason::HeadersTooLarge
            | Reason::UriTooLong
            | Reason::BodyTooLarge
            | Reason::ClientTimeout
            | Reason::Draining
    )
}

/// Text as a field value; what a field cannot say is left out.
fn field(text: &str) -> HeaderValue {
    let clean: String = text.chars().filter(|c| matches!(c, ' '..='~')).collect();
    HeaderValue::from_str(&clean).unwrap_or_else(|_| HeaderValue::from_static("unprintable"))
}

/// `OPTIONS`, `HEAD` and others whose second sending changes nothing (RFC 9110 §9.2.2).
pub(crate) fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::{Side, Step};

    fn refused() -> Failure {
        let mut failure = Failure::new(
            Side::Downstream,
            Step::Permit,
            Reason::RateLimited,
            "per-client",
        );
        failure.limited = Some(Box::new(Limited {
            name: "per-client".into(),
            quota: 100,
            window: std::time::Duration::from_secs(60),
            retry_after: std::time::Duration::from_millis(1500),
        }));
        failure
    }

    #[test]
    fn limits_are_told_in_structured_fields() {
        let response = to_failure(&refused(), Manner::Text);
        assert_eq!(response.status, 429);
        let expected = [
            ("retry-after", "2"),
            ("ratelimit", "\"per-client\";r=0;t=2"),
            ("ratelimit-policy", "\"per-client\";q=100;w=60"),
            ("meshgate-reason", "rate-limited; per-client"),
        ];
        for (name, value) in expected {
            assert_eq!(response.headers[name], value, "{name}");
        }
    }

    #[test]
    fn grpc_clients_get_a_grpc_status() {
        let response = to_failure(&refused(), Manner::Grpc);
        assert_eq!(response.status, 200);
        assert_eq!(response.headers["grpc-status"], "8");
        assert_eq!(response.headers["grpc-message"], "rate-limited; per-client");
    }
}
