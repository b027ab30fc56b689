//! The names that a proxy cares for, found once when a field is read.

use std::fmt;

use crate::octets;

/// Declares the names and the tables over them in one place.
macro_rules! known {
    ($($variant:ident = $text:literal,)*) => {
        /// A field's name that something here or in the engine asks for.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(u8)]
        pub enum Known {
            $(#[doc = concat!("`", $text, "`")] $variant,)*
        }

        impl Known {
            /// Every one, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// In lower case, as HTTP/2 says it.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                }
            }
        }
    };
}

known! {
    Host = "host",
    Connection = "connection",
    KeepAlive = "keep-alive",
    ProxyConnection = "proxy-connection",
    ProxyAuthenticate = "proxy-authenticate",
    ProxyAuthorization = "proxy-authorization",
    Te = "te",
    Trailer = "trailer",
    TransferEncoding = "transfer-encoding",
    Upgrade = "upgrade",
    ContentLength = "content-length",
    ContentType = "content-type",
    ContentEncoding = "content-encoding",
    ContentRange = "content-range",
    Expect = "expect",
    Cookie = "cookie",
    SetCookie = "set-cookie",
    Forwarded = "forwarded",
    XForwardedFor = "x-forwarded-for",
    XForwardedHost = "x-forwarded-host",
    XForwardedProto = "x-forwarded-proto",
    XForwardedPort = "x-forwarded-port",
    XRealIp = "x-real-ip",
    XRequestId = "x-request-id",
    Traceparent = "traceparent",
    Tracestate = "tracestate",
    XForwardedClientCert = "x-forwarded-client-cert",
    Http2Settings = "http2-settings",
    Date = "date",
    Server = "server",
    RetryAfter = "retry-after",
    Authorization = "authorization",
    Via = "via",
    Location = "location",
    WwwAuthenticate = "www-authenticate",
    CacheControl = "cache-control",
    MaxForwards = "max-forwards",
    Range = "range",
    UserAgent = "user-agent",
    Accept = "accept",
    AcceptEncoding = "accept-encoding",
    GrpcTimeout = "grpc-timeout",
    GrpcStatus = "grpc-status",
    GrpcMessage = "grpc-message",
    MeshgateDest = "meshgate-dest",
    MeshgateReason = "meshgate-reason",
    Origin = "origin",
    Allow = "allow",
    Vary = "vary",
    Age = "age",
    Expires = "expires",
    Pragma = "pragma",
    IfMatch = "if-match",
    IfNoneMatch = "if-none-match",
    IfModifiedSince = "if-modified-since",
    IfUnmodifiedSince = "if-unmodified-since",
    IfRange = "if-range",
    Etag = "etag",
    LastModified = "last-modified",
    AltSvc = "alt-svc",
}

/// Of each byte's slot, at most one name. A lookup is one multiplication and one comparison.
static SLOTS: [Option<Known>; 256] = slots();

/// Found by trial: with it no two names share a slot. A new name may need a new one; the build says so.
const MIX: u32 = 0x4886_6d49;

const fn slots() -> [Option<Known>; 256] {
    let mut slots = [None; 256];
    let mut index = 0;
    while index < Known::ALL.len() {
        let known = Known::ALL[index];
        let slot = match slot(known.as_str().as_bytes()) {
            Some(slot) => slot,
            None => panic!("a known name is empty"),
        };
        assert!(
            slots[slot].is_none(),
            "two known names share a slot: try another MIX"
        );
        slots[slot] = Some(known);
        index += 1;
    }
    slots
}

/// Length, first and last byte and one between tell all known names apart. Setting bit 5 makes letters lower case.
#[inline]
const fn slot(name: &[u8]) -> Option<usize> {
    let (Some(first), Some(last)) = (name.first(), name.last()) else {
        return None;
    };
    // Below the length, as that is not zero.
    let inner = name[name.len() / 4 * 3 + name.len() % 4 * 3 / 4];
    let key = u32::from_le_bytes([name.len() as u8, *first | 0x20, inner | 0x20, *last | 0x20]);
    Some((key.wrapping_mul(MIX) >> 24) as usize)
}

impl Known {
    /// Case does not matter.
    #[inline]
    pub fn find(name: &[u8]) -> Option<Self> {
        let known = (*SLOTS.get(slot(name)?)?)?;
        octets::is_lower_of(known.as_str().as_bytes(), name).then_some(known)
    }

    /// Whether the value is a secret, which no log may show.
    pub const fn is_secret(self) -> bool {
        matches!(
            self,
            Self::Authorization | Self::Cookie | Self::SetCookie | Self::ProxyAuthorization
        )
    }
}

/// A name to look for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Name<'a> {
    /// Compared by number.
    Known(Known),
    /// Compared as text, without regard to case.
    Other(&'a str),
}

impl<'a> Name<'a> {
    /// Known in lower case, else as given.
    pub fn as_str(self) -> &'a str {
        match self {
            Self::Known(known) => known.as_str(),
            Self::Other(text) => text,
        }
    }
}

impl From<Known> for Name<'_> {
    #[inline]
    fn from(known: Known) -> Self {
        Self::Known(known)
    }
}

impl<'a> From<&'a str> for Name<'a> {
    fn from(text: &'a str) -> Self {
        Known::find(text.as_bytes()).map_or(Self::Other(text), Self::Known)
    }
}

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Several known names, as bits.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct KnownSet(u64);

// One bit for each.
const _: () = assert!(Known::ALL.len() <= 64);

impl KnownSet {
    /// Nothing.
    pub const EMPTY: Self = Self(0);

    /// These.
    pub const fn of(names: &[Known]) -> Self {
        let mut bits = 0;
        let mut index = 0;
        while index < names.len() {
            bits |= 1 << names[index] as u8;
            index += 1;
        }
        Self(bits)
    }

    /// With those of the other.
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether this name is among them.
    #[inline]
    pub const fn has(self, name: Known) -> bool {
        self.0 & (1 << name as u8) != 0
    }

    /// Whether they have a name in common.
    #[inline]
    pub const fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    #[inline]
    pub(crate) const fn insert(&mut self, name: Known) {
        self.0 |= 1 << name as u8;
    }

    #[inline]
    pub(crate) const fn remove(&mut self, name: Known) {
        self.0 &= !(1 << name as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_name_is_found_in_any_case() {
        for known in Known::ALL {
            let text = known.as_str();
            assert_eq!(text, text.to_ascii_lowercase());
            assert_eq!(Known::find(text.as_bytes()), Some(*known), "{text}");
            let upper = text.to_ascii_uppercase();
            assert_eq!(Known::find(upper.as_bytes()), Some(*known), "{text}");
            let longer = format!("{text}x");
            assert_eq!(Known::find(longer.as_bytes()), None, "{longer}");
            assert_eq!(Name::from(text), Name::Known(*known));
            assert!(KnownSet::of(&[*known]).has(*known));
        }
        assert_eq!(Known::find(b""), None);
        // Setting bit 5 maps these to letters of the name, and they are others yet.
        assert_eq!(Known::find(b"cooki\x45"), Some(Known::Cookie));
        assert_eq!(Known::find(b"\x03ookie"), None);
        assert_eq!(Name::from("x-own"), Name::Other("x-own"));
    }
}
