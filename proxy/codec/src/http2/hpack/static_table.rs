//! The static table (RFC 7541 appendix A): what everybody says anyway.

use super::{Kind, Pseudo};
use crate::fields::Known;

/// An entry of the static table.
#[derive(Clone, Copy)]
pub(super) struct Static {
    /// `name: value\r\n`
    pub(super) line: &'static str,
    pub(super) name_length: usize,
    pub(super) kind: Kind,
}

/// How many there are. They have the indices from 1 on.
pub(super) const COUNT: usize = 61;

macro_rules! entries {
    ($($name:literal = $value:literal,)*) => {
        const TABLE: [Static; COUNT] = [$(
            Static {
                line: concat!($name, ": ", $value, "\r\n"),
                name_length: $name.len(),
                kind: kind($name),
            },
        )*];
    };
}

entries! {
    ":authority" = "",
    ":method" = "GET",
    ":method" = "POST",
    ":path" = "/",
    ":path" = "/index.html",
    ":scheme" = "http",
    ":scheme" = "https",
    ":status" = "200",
    ":status" = "204",
    ":status" = "206",
    ":status" = "304",
    ":status" = "400",
    ":status" = "404",
    ":status" = "500",
    "accept-charset" = "",
    "accept-encoding" = "gzip, deflate",
    "accept-language" = "",
    "accept-ranges" = "",
    "accept" = "",
    "access-control-allow-origin" = "",
    "age" = "",
    "allow" = "",
    "authorization" = "",
    "cache-control" = "",
    "content-disposition" = "",
    "content-encoding" = "",
    "content-language" = "",
    "content-length" = "",
    "content-location" = "",
    "content-range" = "",
    "content-type" = "",
    "cookie" = "",
    "date" = "",
    "etag" = "",
    "expect" = "",
    "expires" = "",
    "from" = "",
    "host" = "",
    "if-match" = "",
    "if-modified-since" = "",
    "if-none-match" = "",
    "if-range" = "",
    "if-unmodified-since" = "",
    "last-modified" = "",
    "link" = "",
    "location" = "",
    "max-forwards" = "",
    "proxy-authenticate" = "",
    "proxy-authorization" = "",
    "range" = "",
    "referer" = "",
    "refresh" = "",
    "retry-after" = "",
    "server" = "",
    "set-cookie" = "",
    "strict-transport-security" = "",
    "transfer-encoding" = "",
    "user-agent" = "",
    "vary" = "",
    "via" = "",
    "www-authenticate" = "",
}

static ENTRIES: [Static; COUNT] = TABLE;

/// Of each known name, the first entry; 0 is none.
static BY_KNOWN: [u8; Known::ALL.len()] = by_known();

/// `index` counts from 1.
#[inline]
pub(super) fn entry(index: usize) -> Option<&'static Static> {
    ENTRIES.get(index.checked_sub(1)?)
}

/// The first entry with this name.
#[inline]
pub(super) fn name_index(kind: Kind, name: &[u8]) -> Option<usize> {
    let index = match kind {
        Kind::Pseudo(Pseudo::Authority) => 1,
        Kind::Pseudo(Pseudo::Method) => 2,
        Kind::Pseudo(Pseudo::Path) => 4,
        Kind::Pseudo(Pseudo::Scheme) => 6,
        Kind::Pseudo(Pseudo::Status) => 8,
        Kind::Pseudo(Pseudo::Protocol) | Kind::Malformed => 0,
        Kind::Known(known) => BY_KNOWN[known as usize],
        Kind::Other => other(name),
    };
    (index > 0).then_some(usize::from(index))
}

/// The entry with this name and value. Only pseudo-fields have values, and `accept-encoding` one of yesterday.
#[inline]
pub(super) fn exact_index(kind: Kind, value: &[u8]) -> Option<usize> {
    Some(match (kind, value) {
        (Kind::Pseudo(Pseudo::Method), b"GET") => 2,
        (Kind::Pseudo(Pseudo::Method), b"POST") => 3,
        (Kind::Pseudo(Pseudo::Path), b"/") => 4,
        (Kind::Pseudo(Pseudo::Path), b"/index.html") => 5,
        (Kind::Pseudo(Pseudo::Scheme), b"http") => 6,
        (Kind::Pseudo(Pseudo::Scheme), b"https") => 7,
        (Kind::Pseudo(Pseudo::Status), b"200") => 8,
        (Kind::Pseudo(Pseudo::Status), b"204") => 9,
        (Kind::Pseudo(Pseudo::Status), b"206") => 10,
        (Kind::Pseudo(Pseudo::Status), b"304") => 11,
        (Kind::Pseudo(Pseudo::Status), b"400") => 12,
        (Kind::Pseudo(Pseudo::Status), b"404") => 13,
        (Kind::Pseudo(Pseudo::Status), b"500") => 14,
        (Kind::Known(Known::AcceptEncoding), b"gzip, deflate") => 16,
        _ => return None,
    })
}

/// The names that nobody here asks for by number.
#[inline]
fn other(name: &[u8]) -> u8 {
    match name {
        b"accept-charset" => 15,
        b"accept-language" => 17,
        b"accept-ranges" => 18,
        b"access-control-allow-origin" => 20,
        b"content-disposition" => 25,
        b"content-language" => 27,
        b"content-location" => 29,
        b"from" => 37,
        b"link" => 45,
        b"referer" => 51,
        b"refresh" => 52,
        b"strict-transport-security" => 56,
        _ => 0,
    }
}

const fn by_known() -> [u8; Known::ALL.len()] {
    let mut indices = [0; Known::ALL.len()];
    let mut index = COUNT;
    while index > 0 {
        if let Kind::Known(known) = TABLE[index - 1].kind {
            indices[known as usize] = index as u8;
        }
        index -= 1;
    }
    indices
}

/// [`Kind::of`] when this is built.
const fn kind(name: &str) -> Kind {
    let mut index = 0;
    while index < Known::ALL.len() {
        let known = Known::ALL[index];
        if equal(name.as_bytes(), known.as_str().as_bytes()) {
            return Kind::Known(known);
        }
        index += 1;
    }
    let mut index = 0;
    while index < Pseudo::ALL.len() {
        let pseudo = Pseudo::ALL[index];
        if equal(name.as_bytes(), pseudo.as_str().as_bytes()) {
            return Kind::Pseudo(pseudo);
        }
        index += 1;
    }
    Kind::Other
}

const fn equal(one: &[u8], other: &[u8]) -> bool {
    if one.len() != other.len() {
        return false;
    }
    let mut index = 0;
    while index < one.len() {
        if one[index] != other[index] {
            return false;
        }
        index += 1;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_is_found_by_its_name_and_its_value() {
        let mut first = 1;
        let mut before = "";
        for index in 1..=COUNT {
            let entry = entry(index).expect("an entry");
            let (name, rest) = entry.line.split_at(entry.name_length);
            let value = rest
                .strip_prefix(": ")
                .and_then(|rest| rest.strip_suffix("\r\n"));
            let value = value.expect(entry.line);
            assert_eq!(entry.kind, Kind::of(name.as_bytes()), "{name}");
            assert_ne!(entry.kind, Kind::Malformed, "{name}");
            if name != before {
                first = index;
            }
            before = name;
            assert_eq!(
                name_index(entry.kind, name.as_bytes()),
                Some(first),
                "{name}"
            );
            let exact = exact_index(entry.kind, value.as_bytes());
            assert_eq!(
                exact,
                (!value.is_empty()).then_some(index),
                "{name}: {value}"
            );
        }
        assert!(entry(0).is_none() && entry(COUNT + 1).is_none());
        assert_eq!(
            name_index(Kind::Pseudo(Pseudo::Protocol), b":protocol"),
            None
        );
        assert_eq!(name_index(Kind::Other, b"x-own"), None);
    }
}
