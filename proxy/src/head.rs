//! A request and a response as the story sees them, whatever protocol they came by.

use http::{HeaderMap, Method, StatusCode};

use crate::body::{RequestBody, ResponseBody};

/// The protocol of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Version {
    Http10,
    Http11,
    Http2,
}

impl Version {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Http10 => "HTTP/1.0",
            Self::Http11 => "HTTP/1.1",
            Self::Http2 => "HTTP/2",
        }
    }
}

/// A request that was judged well-formed.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) method: Method,
    pub(crate) version: Version,
    /// Host and port as sent; empty when there is none (HTTP/1.0).
    pub(crate) authority: Box<str>,
    /// Length of the host's part of `authority`.
    pub(crate) host_end: usize,
    /// Normalised path, with the query as it came.
    pub(crate) target: Box<str>,
    /// Length of the path's part of `target`.
    pub(crate) path_end: usize,
    pub(crate) headers: HeaderMap,
    pub(crate) body: RequestBody,
    /// Set when the client asks to change the protocol (`Upgrade`, or extended CONNECT).
    pub(crate) upgrade: Option<Upgrade>,
    /// The original destination and its protocol, from a proxy of the mesh.
    pub(crate) destination: Option<Destination>,
}

/// A request to change the protocol.
#[derive(Debug)]
pub(crate) struct Upgrade {
    /// The value of `Upgrade` or `:protocol`.
    pub(crate) protocol: http::HeaderValue,
    /// The client's bytes once the change is agreed.
    pub(crate) client: hyper::upgrade::OnUpgrade,
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

    pub(crate) fn is_grpc(&self) -> bool {
        is_grpc(&self.headers)
    }
}

pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    headers
        .get(http::header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// A response on its way to the client.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: ResponseBody,
}
