//! Answers that the proxy makes itself.

use http::StatusCode;
use meshgate_codec::{Fields, Known};
use serde_json::json;

use crate::body::ResponseBody;
use crate::failure::{Failure, Limited, Reason};
use crate::head::{Closes, Response, is_grpc};
use crate::headers::set;

/// How a client wants to be told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Manner {
    Text,
    Json,
    Grpc,
}

impl Manner {
    /// From the request's fields.
    pub(crate) fn of(fields: &Fields) -> Self {
        if is_grpc(fields) {
            return Self::Grpc;
        }
        let wants_json = fields
            .all(Known::Accept)
            .any(|accept| accept.windows(4).any(|part| part == b"json"));
        if wants_json { Self::Json } else { Self::Text }
    }
}

/// The answer to a request that failed.
pub(crate) fn to_failure(failure: &Failure, manner: Manner) -> Response {
    let mut fields = Fields::default();
    set(&mut fields, "meshgate-reason", &clean(&failure.to_string()));
    if let Some(limited) = &failure.limited {
        add_limit_fields(&mut fields, limited);
    }
    if failure.reason == Reason::MethodNotAllowed {
        set(
            &mut fields,
            "allow",
            b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS",
        );
    }
    let (status, body) = match manner {
        Manner::Grpc => {
            // Trailers-only: gRPC clients look at nothing else.
            set(&mut fields, Known::ContentType, b"application/grpc");
            let code = grpc_status(failure.reason).to_string();
            set(&mut fields, "grpc-status", code.as_bytes());
            let message = percent_encoded(&failure.to_string());
            set(&mut fields, "grpc-message", &clean(&message));
            (StatusCode::OK, String::new())
        }
        Manner::Json => {
            set(&mut fields, Known::ContentType, b"application/json");
            let body = json!({
                "status": failure.status().as_u16(),
                "reason": failure.reason.as_str(),
                "detail": failure.detail,
            });
            (failure.status(), format!("{body}\n"))
        }
        Manner::Text => {
            set(
                &mut fields,
                Known::ContentType,
                b"text/plain; charset=utf-8",
            );
            (failure.status(), format!("{failure}\n"))
        }
    };
    set(
        &mut fields,
        Known::ContentLength,
        body.len().to_string().as_bytes(),
    );
    Response {
        status,
        fields,
        body: ResponseBody::text(body),
        closes: closes(failure.reason),
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
fn add_limit_fields(fields: &mut Fields, limited: &Limited) {
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
    set(
        fields,
        Known::RetryAfter,
        retry_after.to_string().as_bytes(),
    );
    let window = seconds(limited.window);
    let policy = format!("\"{name}\";q={};w={window}", limited.quota);
    set(fields, "ratelimit-policy", &clean(&policy));
    let left = format!("\"{name}\";r=0;t={retry_after}");
    set(fields, "ratelimit", &clean(&left));
}

/// After some nobody knows where the next request would begin (what follows CONNECT is for a tunnel), or the client shall
/// not send the rest.
fn closes(reason: Reason) -> Closes {
    match reason {
        Reason::BadRequest
        | Reason::HeadersTooLarge
        | Reason::UriTooLong
        | Reason::BodyTooLarge
        | Reason::MethodNotAllowed
        | Reason::ClientTimeout
        | Reason::Draining => Closes::Http1,
        Reason::Outdated => Closes::Any,
        _ => Closes::Nothing,
    }
}

/// Text as a field value; what a field cannot say is left out.
fn clean(text: &str) -> Vec<u8> {
    text.bytes()
        .filter(|byte| matches!(byte, b' '..=b'~'))
        .collect()
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
            assert_eq!(response.fields.get(name), Some(value.as_bytes()), "{name}");
        }
    }

    #[test]
    fn grpc_clients_get_a_grpc_status() {
        let response = to_failure(&refused(), Manner::Grpc);
        assert_eq!(response.status, 200);
        assert_eq!(response.fields.get("grpc-status"), Some("8".as_bytes()));
        assert_eq!(
            response.fields.get("grpc-message"),
            Some("rate-limited; per-client".as_bytes())
        );
    }
}
