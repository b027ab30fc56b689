//! Heads as header blocks. What HTTP/2 says otherwise is left out: fields of an HTTP/1 connection, and `host`.

use super::Scheme;
use crate::fields::{Fields, Known, KnownSet};
use crate::http1::HOP_BY_HOP;
use crate::http2::hpack::{Encoder, Pseudo};
use crate::method::Method;
use crate::status;

/// What of a request is no field.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RequestLine<'a> {
    /// `:method`
    pub method: &'a Method,
    /// `:scheme`; a plain CONNECT has none.
    pub scheme: Scheme,
    /// `:authority`; not said when empty.
    pub authority: &'a str,
    /// Path and query; `*` with OPTIONS; a plain CONNECT has none.
    pub path: &'a str,
    /// What an extended CONNECT changes to (RFC 8441).
    pub protocol: Option<&'a str>,
}

/// Appends the head of a request. Of `te` only `trailers` is said.
pub fn encode_request(
    encoder: &mut Encoder,
    line: RequestLine<'_>,
    fields: &Fields,
    out: &mut Vec<u8>,
) {
    encoder.begin(out);
    encoder.pseudo(Pseudo::Method, line.method.as_str().as_bytes(), out);
    if *line.method != Method::Connect || line.protocol.is_some() {
        encoder.pseudo(Pseudo::Scheme, line.scheme.as_str().as_bytes(), out);
        encoder.pseudo(Pseudo::Path, line.path.as_bytes(), out);
    }
    if !line.authority.is_empty() {
        encoder.pseudo(Pseudo::Authority, line.authority.as_bytes(), out);
    }
    if let Some(protocol) = line.protocol {
        encoder.pseudo(Pseudo::Protocol, protocol.as_bytes(), out);
    }
    write_fields(encoder, fields, LEFT_OUT, out);
}

/// Appends the head of a response. The status has three digits and is not 101, which HTTP/2 does not have.
pub fn encode_response(encoder: &mut Encoder, status: u16, fields: &Fields, out: &mut Vec<u8>) {
    encoder.begin(out);
    encoder.pseudo(Pseudo::Status, &status::digits(status), out);
    let left_out = match status {
        100..=199 | 204 => LEFT_OUT_OF_NOTHING,
        _ => LEFT_OUT,
    };
    write_fields(encoder, fields, left_out, out);
}

/// Appends trailers.
pub fn encode_trailers(encoder: &mut Encoder, fields: &Fields, out: &mut Vec<u8>) {
    encoder.begin(out);
    write_fields(encoder, fields, LEFT_OUT, out);
}

const LEFT_OUT: KnownSet = HOP_BY_HOP.and(KnownSet::of(&[Known::Host]));
/// An answer that never has a body says no length (RFC 9110 §8.6), even where its origin did (RFC 9113 §8.1.1).
const LEFT_OUT_OF_NOTHING: KnownSet = LEFT_OUT.and(KnownSet::of(&[Known::ContentLength]));

fn write_fields(encoder: &mut Encoder, fields: &Fields, left_out: KnownSet, out: &mut Vec<u8>) {
    for field in fields.iter() {
        let is_said = match field.known {
            Some(Known::Te) => field.value.eq_ignore_ascii_case(b"trailers"),
            Some(known) => !left_out.has(known),
            None => true,
        };
        if is_said {
            encoder.field(field, out);
        }
    }
}
