//! Methods (RFC 9110 §9).

use std::fmt;

use crate::octets;

/// What is asked for. Case counts: `get` is another method than `GET`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Method {
    /// `GET`
    #[default]
    Get,
    /// `HEAD`
    Head,
    /// `POST`
    Post,
    /// `PUT`
    Put,
    /// `DELETE`
    Delete,
    /// `CONNECT`
    Connect,
    /// `OPTIONS`
    Options,
    /// `TRACE`
    Trace,
    /// `PATCH`
    Patch,
    /// Any other token.
    Other(OtherMethod),
}

/// A token that is none of the known methods.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct OtherMethod {
    length: u8,
    /// Zeros behind the token.
    bytes: [u8; Method::BYTES_MAX],
}

impl Method {
    /// The longest registered one has 17 bytes (`UPDATEREDIRECTREF`); all of them are kept inline.
    pub const BYTES_MAX: usize = 32;

    /// `None` when the bytes are no token, or too long a one.
    #[inline]
    pub fn parse(token: &[u8]) -> Option<Self> {
        Some(match token {
            b"GET" => Self::Get,
            b"HEAD" => Self::Head,
            b"POST" => Self::Post,
            b"PUT" => Self::Put,
            b"DELETE" => Self::Delete,
            b"CONNECT" => Self::Connect,
            b"OPTIONS" => Self::Options,
            b"TRACE" => Self::Trace,
            b"PATCH" => Self::Patch,
            other => Self::Other(OtherMethod::parse(other)?),
        })
    }

    /// As it stands in the request line.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
            Self::Options => "OPTIONS",
            Self::Trace => "TRACE",
            Self::Patch => "PATCH",
            Self::Other(other) => other.as_str(),
        }
    }

    /// Whether it only reads (RFC 9110 §9.2.1). Unknown methods are not.
    pub fn is_safe(&self) -> bool {
        matches!(self, Self::Get | Self::Head | Self::Options | Self::Trace)
    }

    /// Whether doing it twice is doing it once (RFC 9110 §9.2.2). Unknown methods are not.
    pub fn is_idempotent(&self) -> bool {
        self.is_safe() || matches!(self, Self::Put | Self::Delete)
    }
}

impl OtherMethod {
    fn parse(token: &[u8]) -> Option<Self> {
        if !octets::is_token(token) {
            return None;
        }
        let mut bytes = [0; Method::BYTES_MAX];
        bytes.get_mut(..token.len())?.copy_from_slice(token);
        Some(Self {
            length: u8::try_from(token.len()).ok()?,
            bytes,
        })
    }

    fn as_str(&self) -> &str {
        let token = self.bytes.get(..usize::from(self.length));
        // A token is ASCII, and no longer than its room.
        std::str::from_utf8(token.unwrap_or_default()).unwrap_or_default()
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for OtherMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::Method;

    fn check(token: &str, safe: bool, idempotent: bool) {
        let method = Method::parse(token.as_bytes()).expect(token);
        assert_eq!(method.as_str(), token);
        assert_eq!(
            (method.is_safe(), method.is_idempotent()),
            (safe, idempotent),
            "{token}"
        );
    }

    #[test]
    fn methods_are_tokens() {
        check("GET", true, true);
        check("HEAD", true, true);
        check("OPTIONS", true, true);
        check("TRACE", true, true);
        check("PUT", false, true);
        check("DELETE", false, true);
        check("POST", false, false);
        check("PATCH", false, false);
        check("CONNECT", false, false);
        check("get", false, false);
        check("PROPFIND", false, false);
        check(&"X".repeat(32), false, false);
        for bad in ["", "G T", "GET:", "G\0", "\u{e4}", &"X".repeat(33)] {
            assert_eq!(Method::parse(bad.as_bytes()), None, "{bad:?}");
        }
    }
}
