//! Heads of HTTP/1 responses.

use meshgate_codec::http1::{
    BadHead, Framing, HeadLimits, Parsed, Persist, ResponseParser, StatusLine, encode_response,
    parse_response, response_framing,
};
use meshgate_codec::{Method, ResponseHead, Version};

use crate::{head, parts};

/// One verdict wherever reads end; what is accepted is well-formed, read the same by httparse, and read the same again
/// after it was written, whatever was asked.
pub fn response_head(input: &[u8]) {
    for limits in head::LIMITS {
        let limits = limits();
        let mut head = ResponseHead::default();
        let parsed = parse_response(input, &limits, &mut head);
        for ends in parts::ways(input) {
            same_in_parts(input, &ends, &limits, parsed, &head);
        }
        match parsed {
            Err(_) => assert_eq!(head, ResponseHead::default()),
            Ok(Parsed::Partial) => assert!(input.len() <= limits.head_bytes_max),
            Ok(Parsed::Head { consumed }) => {
                head::is_well_formed(input, Parsed::Head { consumed }, &head.fields, &limits);
                same_by_httparse(&input[..consumed], &head);
                for method in [Method::Get, Method::Head, Method::Connect] {
                    same_when_written(&head, &method, &limits);
                }
            }
        }
    }
}

fn same_in_parts(
    input: &[u8],
    ends: &[usize],
    limits: &HeadLimits,
    whole: Result<Parsed, BadHead>,
    expected: &ResponseHead,
) {
    let (mut parser, mut head) = (ResponseParser::default(), ResponseHead::default());
    let mut parsed = Ok(Parsed::Partial);
    for end in ends {
        parsed = parser.parse(&input[..*end], limits, &mut head);
        if parsed != Ok(Parsed::Partial) {
            break;
        }
    }
    assert_eq!(parsed, whole);
    if parsed != Ok(Parsed::Partial) {
        assert_eq!(&head, expected);
    }
}

fn same_by_httparse(input: &[u8], head: &ResponseHead) {
    let mut fields = [httparse::EMPTY_HEADER; 100];
    let mut other = httparse::Response::new(&mut fields);
    let parsed = other.parse(input);
    assert_eq!(parsed, Ok(httparse::Status::Complete(input.len())));
    assert_eq!(other.code, Some(head.status));
    let minor = u8::from(head.version == Version::Http11);
    assert_eq!(other.version, Some(minor));
    head::same_fields(&head.fields, other.headers);
}

fn same_when_written(head: &ResponseHead, method: &Method, limits: &HeadLimits) {
    let Ok(framing) = response_framing(head, method) else {
        return;
    };
    let line = StatusLine {
        status: head.status,
        version: Version::Http11,
    };
    let mut out = Vec::new();
    encode_response(line, &head.fields, framing, Persist::Keep, &mut out)
        .expect("what was judged can be said");
    // Our own lines may lead it over the limits.
    let limits = HeadLimits {
        head_bytes_max: limits.head_bytes_max + 256,
        fields_max: limits.fields_max + 3,
        field_bytes_max: limits.field_bytes_max + 256,
        ..*limits
    };
    let mut again = ResponseHead::default();
    let parsed = parse_response(&out, &limits, &mut again);
    assert_eq!(
        parsed,
        Ok(Parsed::Head {
            consumed: out.len()
        })
    );
    assert_eq!(
        (again.status, again.version),
        (head.status, Version::Http11)
    );
    assert_eq!(response_framing(&again, method), Ok(framing));
    // Only the end of the connection ends it, so the connection must be said to end.
    assert_eq!(again.persists(), framing != Framing::UntilClose);
    assert_eq!(
        head::undecided(&again.fields),
        head::undecided(&head.fields)
    );
}
