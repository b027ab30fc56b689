//! A request in the words that all readers share.

use meshgate_codec::{Known, RequestHead};

/// What a reader saw in a text.
#[derive(Debug)]
pub(super) enum Read {
    /// Nothing: it answered that the text is no request it takes.
    Refused,
    /// These requests, and then the end.
    Requests(Vec<Reading>),
}

/// One request.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Reading {
    method: String,
    target: String,
    host: String,
    /// Sorted: some readers keep no order between names. In lower case, without those that readers take for themselves.
    fields: Vec<Field>,
    /// With what the reader says if it did not get it whole.
    body: Vec<u8>,
}

/// A line of a head.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Field {
    pub(super) name: String,
    pub(super) value: Vec<u8>,
}

impl std::fmt::Debug for Field {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.name, self.value.escape_ascii())
    }
}

/// Taken out, or made up, by one reader or another.
const TAKEN: [&str; 6] = [
    "cache-control",
    "connection",
    "content-length",
    "host",
    "trailer",
    "transfer-encoding",
];

impl Reading {
    pub(super) fn new(
        method: &str,
        target: &str,
        host: &str,
        fields: impl Iterator<Item = Field>,
        body: Vec<u8>,
    ) -> Self {
        let mut fields: Vec<Field> = fields
            .filter(|field| !TAKEN.contains(&field.name.as_str()))
            .collect();
        fields.sort();
        Self {
            method: method.to_owned(),
            target: spelled_out(target),
            host: host.to_ascii_lowercase(),
            fields,
            body,
        }
    }
}

/// An absolute target has its scheme in lower case, and a path even where its sender left it out.
fn spelled_out(target: &str) -> String {
    let absolute = target
        .split_once("://")
        .filter(|_| !target.starts_with('/'));
    let Some((scheme, rest)) = absolute else {
        return target.to_owned();
    };
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let slash = if path.starts_with('/') { "" } else { "/" };
    format!("{}://{authority}{slash}{path}", scheme.to_lowercase())
}

/// Whether this reader is known to refuse requests like this one, as a whole: a refusal smuggles nothing.
pub(super) fn may_refuse(reader: &str, head: &RequestHead) -> bool {
    match reader {
        // Its type for targets knows less than others take.
        "hyper" => head.target.as_str().contains(|byte| !is_of_uri(byte)),
        // It keeps no promise but one, and wants no framing announced behind the body.
        "net/http" => head.fields.contains(Known::Expect) || head.fields.contains(Known::Trailer),
        _ => false,
    }
}

/// RFC 3986 §3.3 and §3.4.
fn is_of_uri(byte: char) -> bool {
    byte.is_ascii_alphanumeric() || "/?:@-._~!$&'()*+,;=%".contains(byte)
}
