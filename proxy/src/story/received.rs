//! A request as it came, from either protocol.

use http::uri::Authority;
use meshgate_codec::{Fields, Form, Method, RequestHead, Target, Version};

use crate::body::Incoming;
use crate::failure::{Failure, Reason};
use crate::http2;

/// Well-formed as a message; not judged as a request yet.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) method: Method,
    pub(crate) version: Version,
    /// From the target (absolute form, authority form, `:authority`).
    pub(crate) authority: Option<Box<str>>,
    /// Path and query, `*`, or nothing.
    pub(crate) target: Box<str>,
    pub(crate) fields: Fields,
    pub(crate) body: Incoming,
}

impl Received {
    /// Takes the fields out of the head.
    pub(crate) fn from_http1(head: &mut RequestHead, body: Incoming) -> Self {
        Self {
            method: head.method,
            version: head.version,
            authority: head.target.authority().map(Into::into),
            target: target(&head.target).into(),
            fields: std::mem::take(&mut head.fields),
            body,
        }
    }

    /// Judges what the library does not.
    pub(crate) fn from_http2(
        request: hyper::Request<hyper::body::Incoming>,
    ) -> Result<Self, Failure> {
        let (head, body) = request.into_parts();
        let mut fields = http2::to_fields(&head.headers);
        http2::join_cookies(&mut fields);
        let uri = &head.uri;
        let method = Method::parse(head.method.as_str().as_bytes());
        let too_long = || Failure::downstream(Reason::BadRequest, "the method is too long");
        Ok(Self {
            method: method.ok_or_else(too_long)?,
            version: Version::Http2,
            authority: uri.authority().map(Authority::as_str).map(Into::into),
            target: uri
                .path_and_query()
                .map_or("", |target| target.as_str())
                .into(),
            fields,
            body: Incoming::Http2(body),
        })
    }
}

fn target(target: &Target) -> &str {
    match target.form() {
        Form::Origin(path_and_query) | Form::Absolute { path_and_query, .. } => path_and_query,
        Form::Authority(_) => "",
        Form::Asterisk => "*",
    }
}
