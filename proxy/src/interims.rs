//! Answers before the answer, on their way to the client (RFC 9110 §15.2).

use meshgate_codec::http1::strip_hop_by_hop;
use meshgate_codec::{Known, ResponseHead};

use crate::{http1, http2};

/// Where they go.
#[derive(Debug)]
pub(crate) enum Interims {
    /// Nowhere: HTTP/1.0 has none.
    Nowhere,
    Http1(http1::Interims),
    Http2(http2::Interims),
}

impl Interims {
    /// Whether the client waits for a word before it sends its body (RFC 9110 §10.1.1).
    pub(crate) fn awaits_continue(&self) -> bool {
        match self {
            Self::Nowhere => false,
            Self::Http1(client) => client.awaits_continue(),
            Self::Http2(client) => client.awaits_continue(),
        }
    }

    /// Tells the client what an endpoint said. "100 Continue" is told once, to those who wait for it.
    pub(crate) fn tell(&self, mut head: ResponseHead) {
        if strip_hop_by_hop(&mut head.fields).is_err() {
            return;
        }
        head.fields.remove(Known::ContentLength);
        match self {
            Self::Nowhere => {}
            Self::Http1(client) => client.tell(&head),
            Self::Http2(client) => client.tell(&head),
        }
    }
}
