//! A failed request, ready to be answered as a `metav1.Status`.

use serde_json::{Map, Value, json};

use crate::FieldError;

/// A failed request: the HTTP status code and the words of its `metav1.Status`.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// HTTP status code.
    pub code: u16,
    /// `metav1.StatusReason`; empty when Kubernetes gives none.
    pub reason: &'static str,
    /// One sentence for people.
    pub message: String,
    /// `metav1.StatusDetails`: what was asked for, and the causes.
    pub details: Option<Value>,
}

impl Failure {
    /// A failure without details.
    pub fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Failure {
        Failure {
            code,
            reason,
            message: message.into(),
            details: None,
        }
    }

    /// 400: the request itself cannot be understood.
    pub fn bad_request(message: impl Into<String>) -> Failure {
        Failure::new(400, "BadRequest", message)
    }

    /// 401.
    pub fn unauthorized() -> Failure {
        Failure::new(401, "Unauthorized", "Unauthorized")
    }

    /// 403; `problem` says why ("User "x" cannot list resource ...").
    pub fn forbidden(group: &str, plural: &str, name: &str, problem: &str) -> Failure {
        let subject = subject(group, plural, name);
        Failure::new(
            403,
            "Forbidden",
            format!("{subject} is forbidden: {problem}"),
        )
        .about(group, plural, name)
    }

    /// 404 of a named object.
    pub fn not_found(group: &str, plural: &str, name: &str) -> Failure {
        Failure::new(
            404,
            "NotFound",
            format!("{} not found", subject(group, plural, name)),
        )
        .about(group, plural, name)
    }

    /// 404 of a path that nobody serves.
    pub fn no_such_resource() -> Failure {
        let mut failure = Failure::new(
            404,
            "NotFound",
            "the server could not find the requested resource",
        );
        failure.details = Some(json!({}));
        failure
    }

    /// 405.
    pub fn method_not_allowed() -> Failure {
        let mut failure = Failure::new(
            405,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
        );
        failure.details = Some(json!({}));
        failure
    }

    /// 406: no offered media type can be produced.
    pub fn not_acceptable(message: impl Into<String>) -> Failure {
        Failure::new(406, "NotAcceptable", message)
    }

    /// 409 at creation of a name that is taken.
    pub fn already_exists(group: &str, plural: &str, name: &str) -> Failure {
        Failure::new(
            409,
            "AlreadyExists",
            format!("{} already exists", subject(group, plural, name)),
        )
        .about(group, plural, name)
    }

    /// 409 of a stale or refused write.
    pub fn conflict(group: &str, plural: &str, name: &str, problem: &str) -> Failure {
        let subject = subject(group, plural, name);
        Failure::new(
            409,
            "Conflict",
            format!("Operation cannot be fulfilled on {subject}: {problem}"),
        )
        .about(group, plural, name)
    }

    /// 410: the asked-for resource version is gone.
    pub fn expired(message: impl Into<String>) -> Failure {
        Failure::new(410, "Expired", message)
    }

    /// 413.
    pub fn too_large(message: impl Into<String>) -> Failure {
        Failure::new(413, "RequestEntityTooLarge", message)
    }

    /// 415.
    pub fn unsupported_media_type(message: impl Into<String>) -> Failure {
        Failure::new(415, "UnsupportedMediaType", message)
    }

    /// 422 with a cause per field error.
    pub fn invalid(group: &str, kind: &str, name: &str, errors: &[FieldError]) -> Failure {
        let kind_and_group = qualified(group, kind);
        let mut message = format!("{kind_and_group} \"{name}\" is invalid");
        match errors {
            [] => {}
            [one] => message.push_str(&format!(": {one}")),
            many => {
                let list: Vec<String> = many.iter().map(ToString::to_string).collect();
                message.push_str(&format!(": [{}]", list.join(", ")));
            }
        }
        let mut failure = Failure::new(422, "Invalid", message).about(group, kind, name);
        if let Some(Value::Object(details)) = &mut failure.details
            && !errors.is_empty()
        {
            details.insert(
                "causes".into(),
                errors.iter().map(FieldError::cause).collect(),
            );
        }
        failure
    }

    /// 429 with the seconds after which to try again.
    pub fn too_many_requests(message: impl Into<String>, retry_after_s: u32) -> Failure {
        let mut failure = Failure::new(429, "TooManyRequests", message);
        failure.details = Some(json!({"retryAfterSeconds": retry_after_s}));
        failure
    }

    /// 500: our fault.
    pub fn internal(problem: impl std::fmt::Display) -> Failure {
        let mut failure = Failure::new(
            500,
            "InternalError",
            format!("Internal error occurred: {problem}"),
        );
        failure.details = Some(json!({"causes": [{"message": problem.to_string()}]}));
        failure
    }

    /// 503.
    pub fn unavailable(message: impl Into<String>) -> Failure {
        Failure::new(503, "ServiceUnavailable", message)
    }

    /// 504: the answer would not have come in time.
    pub fn timeout(message: impl Into<String>) -> Failure {
        Failure::new(504, "Timeout", message)
    }

    /// The `metav1.Status` object.
    pub fn to_status(&self) -> Value {
        let mut status = Map::new();
        status.insert("kind".into(), "Status".into());
        status.insert("apiVersion".into(), "v1".into());
        status.insert("metadata".into(), json!({}));
        status.insert("status".into(), "Failure".into());
        if !self.message.is_empty() {
            status.insert("message".into(), self.message.clone().into());
        }
        if !self.reason.is_empty() {
            status.insert("reason".into(), self.reason.into());
        }
        if let Some(details) = &self.details {
            status.insert("details".into(), details.clone());
        }
        status.insert("code".into(), self.code.into());
        Value::Object(status)
    }

    /// Names what the failure is about; Kubernetes puts the plural or, at 422, the kind into `details.kind`.
    fn about(mut self, group: &str, kind: &str, name: &str) -> Failure {
        let mut details = Map::new();
        for (key, value) in [("name", name), ("group", group), ("kind", kind)] {
            if !value.is_empty() {
                details.insert(key.into(), value.into());
            }
        }
        self.details = Some(Value::Object(details));
        self
    }
}

fn qualified(group: &str, word: &str) -> String {
    if group.is_empty() {
        word.to_owned()
    } else {
        format!("{word}.{group}")
    }
}

fn subject(group: &str, plural: &str, name: &str) -> String {
    format!("{} \"{name}\"", qualified(group, plural))
}
