//! A request as it came, from either protocol.

use meshgate_codec::{Fields, Form, Method, RequestHead, Target, Version, http2};

use crate::body::Incoming;
use crate::headers::set;
use crate::interims::Interims;
use crate::websocket;

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
    pub(crate) interims: Interims,
    /// What an extended CONNECT asks to change to.
    pub(crate) protocol: Option<Box<str>>,
}

impl Received {
    /// Takes the fields out of the head.
    pub(crate) fn from_http1(head: &mut RequestHead, body: Incoming, interims: Interims) -> Self {
        Self {
            method: head.method,
            version: head.version,
            authority: head.target.authority().map(Into::into),
            target: target(&head.target).into(),
            fields: std::mem::take(&mut head.fields),
            body,
            interims,
            protocol: None,
        }
    }

    /// An extended CONNECT asks for a change of protocol, as an upgrade does in HTTP/1 (RFC 8441 §5).
    pub(crate) fn from_http2(
        mut head: http2::RequestHead,
        body: Incoming,
        interims: Interims,
    ) -> Self {
        if head.protocol.as_deref() == Some(websocket::NAME) {
            // HTTP/2 has none; HTTP/1 cannot do without (RFC 6455 §4.1).
            set(
                &mut head.fields,
                websocket::KEY,
                websocket::key().as_bytes(),
            );
        }
        Self {
            method: match head.protocol {
                Some(_) => Method::Get,
                None => head.method,
            },
            version: Version::Http2,
            authority: head.authority,
            target: head.path,
            fields: head.fields,
            body,
            interims,
            protocol: head.protocol,
        }
    }
}

fn target(target: &Target) -> &str {
    match target.form() {
        Form::Origin(path_and_query) | Form::Absolute { path_and_query, .. } => path_and_query,
        Form::Authority(_) => "",
        Form::Asterisk => "*",
    }
}
