//! Heads of HTTP/2 (RFC 9113 §8), with those of extended CONNECT (RFC 8441).
//!
//! A block is always decoded to its end, lest the tables get out of step; of a head that is refused nothing is kept.

mod fields;
mod read;
mod write;

use thiserror::Error;

pub use read::{decode_request, decode_response, decode_trailers};
pub use write::{RequestLine, encode_request, encode_response, encode_trailers};

use crate::fields::{FieldError, Fields};
use crate::http1::OverLimit;
use crate::method::Method;

/// What is asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RequestHead {
    /// `:method`
    pub method: Method,
    /// `:scheme`; a plain CONNECT has none.
    pub scheme: Option<Scheme>,
    /// `:authority`, or else `host`: both are the same if both are there. Judged, see
    /// [`Authority`](crate::Authority). Only senders that had it from HTTP/1.0 say neither.
    pub authority: Option<Box<str>>,
    /// Path and query; `*` with OPTIONS only; empty for a plain CONNECT.
    pub path: Box<str>,
    /// What an extended CONNECT changes to (RFC 8441).
    pub protocol: Option<Box<str>>,
    /// `cookie` is one line. `host` is here if it came.
    pub fields: Fields,
}

/// By what a target is to be reached, as the client sees it. That need not be how the connection was made.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Scheme {
    /// `http`
    Http,
    /// `https`
    Https,
}

/// Why a head is refused. None of the texts repeats what the peer sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum BadHead {
    /// The stream is reset with PROTOCOL_ERROR (RFC 9113 §8.1.1).
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// A scheme that is well-formed, but neither `http` nor `https`.
    #[error("the scheme is not HTTP")]
    Scheme,
    /// See [`HeadLimits`](crate::http1::HeadLimits).
    #[error(transparent)]
    Over(#[from] OverLimit),
}

/// How a head breaks the rules.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum Malformed {
    /// Upper case, no token, or empty.
    #[error("the name of a field is malformed")]
    FieldName,
    /// A control character, or a space at an end.
    #[error("the value of a field is malformed")]
    FieldValue,
    /// Such as `connection`: HTTP/2 has frames for that (RFC 9113 §8.2.2).
    #[error("a field that concerns an HTTP/1 connection")]
    ConnectionField,
    /// Anything but `trailers`.
    #[error("TE is other than trailers")]
    Te,
    /// Not defined, or not for this kind of message.
    #[error("a pseudo-field that does not belong here")]
    Pseudo,
    /// Behind an ordinary field.
    #[error("a pseudo-field behind an ordinary field")]
    LatePseudo,
    /// Two servers might choose differently.
    #[error("a pseudo-field comes twice")]
    PseudoTwice,
    /// One that every such message has.
    #[error("a pseudo-field is missing")]
    PseudoMissing,
    /// No token, or too long a one.
    #[error("the method is malformed")]
    Method,
    /// Not even a scheme.
    #[error("the scheme is malformed")]
    Scheme,
    /// Empty, with a byte that does not belong there, or without a slash in front.
    #[error("the path is malformed")]
    Path,
    /// Not a host with an optional port; for CONNECT the port is not optional.
    #[error("the authority is not a host with an optional port")]
    Authority,
    /// Two servers might choose differently.
    #[error("Host is not the same as the authority, or comes twice")]
    Host,
    /// No token, or not with CONNECT.
    #[error("the protocol is malformed, or the method is not CONNECT")]
    Protocol,
    /// Not 100 to 999, or 101, which HTTP/2 does not have.
    #[error("the status is malformed")]
    Status,
    /// Not exactly one number.
    #[error("Content-Length is malformed, or comes twice")]
    ContentLength,
}

impl BadHead {
    /// What a client is told, unless the stream is reset. For an upstream's head it is 502 whatever the cause.
    pub fn status(self) -> u16 {
        match self {
            Self::Malformed(_) | Self::Scheme => 400,
            Self::Over(limit) => limit.status(),
        }
    }
}

impl From<FieldError> for BadHead {
    fn from(error: FieldError) -> Self {
        match error {
            FieldError::BadName => Malformed::FieldName.into(),
            FieldError::BadValue => Malformed::FieldValue.into(),
            FieldError::TooLong => OverLimit::Head.into(),
        }
    }
}

impl Scheme {
    /// As a URI has it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// RFC 3986 §3.1; case does not matter.
    fn parse(bytes: &[u8]) -> Result<Self, BadHead> {
        if bytes.eq_ignore_ascii_case(b"https") {
            return Ok(Self::Https);
        }
        if bytes.eq_ignore_ascii_case(b"http") {
            return Ok(Self::Http);
        }
        let is_scheme = bytes.first().is_some_and(u8::is_ascii_alphabetic)
            && bytes
                .iter()
                .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(byte));
        match is_scheme {
            true => Err(BadHead::Scheme),
            false => Err(Malformed::Scheme.into()),
        }
    }
}

#[cfg(test)]
mod tests;
