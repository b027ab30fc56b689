//! Heads of HTTP/1 responses.

use meshgate_codec::http1::{
    Framing, HeadLimits, Parsed, Persist, ResponseParser, StatusLine, encode_response,
    parse_response, response_framing,
};
use meshgate_codec::{Method, ResponseHead, Version};

use crate::head;

/// One verdict wherever reads end; what is accepted is well-formed, read the same by httparse, and read the same again
/// after it was written, whatever was asked.
pub fn response_head(input: &[u8]) {
    for limits in head::LIMITS {
        let limits = limits();
        let mut head = ResponseHead::default();
        let parsed = parse_response(input, &limits, &mut head);
        head::same_in_parts(input, parsed, &head, || {
            let mut parser = ResponseParser::default();
            move |input: &[u8], head: &mut ResponseHead| parser.parse(input, &limits, head)
        });
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
    let limits = head::with_our_lines(limits);
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
