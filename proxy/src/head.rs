//! A request and a response as the story sees them, whatever protocol they came by.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use meshgate_codec::{Fields, Known, Method, Version};

use crate::body::{RequestBody, ResponseBody};
use crate::interims::Interims;
use crate::io::Io;
use crate::upstream::Held;

/// A request that was judged well-formed.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) method: Method,
    pub(crate) version: Version,
    /// Host and port as sent; empty when there is none (HTTP/1.0).
    pub(crate) authority: Arc<str>,
    /// Length of the host's part of `authority`.
    pub(crate) host_end: usize,
    /// Normalised path, with the query as it came.
    pub(crate) target: Box<str>,
    /// Length of the path's part of `target`.
    pub(crate) path_end: usize,
    pub(crate) fields: Fields,
    pub(crate) body: RequestBody,
    /// The protocol that the client asks to change to.
    pub(crate) upgrade: Option<Box<str>>,
    /// Where answers before the answer go.
    pub(crate) interims: Interims,
    /// The original destination and its protocol, from a proxy of the mesh.
    pub(crate) destination: Option<Destination>,
}

/// Where a request of the mesh goes: port and protocol of the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Destination {
    pub(crate) port: u16,
    pub(crate) http2: bool,
}

impl Request {
    /// Without port; as sent.
    pub(crate) fn host(&self) -> &str {
        &self.authority[..self.host_end]
    }

    /// Without query.
    pub(crate) fn path(&self) -> &str {
        &self.target[..self.path_end]
    }

    /// As it came; empty when there is none.
    pub(crate) fn query(&self) -> &str {
        let query = &self.target[self.path_end..];
        query.strip_prefix('?').unwrap_or(query)
    }

    /// What the client said by a header field, several lines as the one that they mean (RFC 9110 §5.3); of those that the
    /// story takes out of the fields as well.
    pub(crate) fn said(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        if name.eq_ignore_ascii_case("host") {
            return Some(self.authority.as_bytes().into());
        }
        if name.eq_ignore_ascii_case("upgrade") {
            return self
                .upgrade
                .as_ref()
                .map(|protocol| protocol.as_bytes().into());
        }
        joined(self.fields.all(name))
    }

    pub(crate) fn is_grpc(&self) -> bool {
        is_grpc(&self.fields)
    }
}

fn joined<'a>(mut lines: impl Iterator<Item = &'a [u8]>) -> Option<Cow<'a, [u8]>> {
    let mut whole = Cow::Borrowed(lines.next()?);
    for line in lines {
        let whole = whole.to_mut();
        whole.extend_from_slice(b", ");
        whole.extend_from_slice(line);
    }
    Some(whole)
}

pub(crate) fn is_grpc(fields: &Fields) -> bool {
    fields
        .get(Known::ContentType)
        .is_some_and(|kind| kind.starts_with(b"application/grpc"))
}

/// A response on its way to the client.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: StatusCode,
    pub(crate) fields: Fields,
    pub(crate) body: ResponseBody,
    pub(crate) closes: Closes,
}

/// What an answer ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Closes {
    Nothing,
    /// A connection of HTTP/1: nobody knows where its next request would begin, or it shall not come.
    Http1,
    /// The connection, whatever it speaks: it is of no more use.
    Any,
}

/// What an endpoint agreed to change the protocol with.
#[derive(Debug)]
pub(crate) struct Switch {
    pub(crate) protocol: Box<str>,
    pub(crate) upstream: Io,
    /// Silence that ends it.
    pub(crate) idle: Option<Duration>,
    pub(crate) held: Box<Held>,
}
