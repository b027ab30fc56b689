//! Heads of HTTP/1 requests.

use meshgate_codec::http1::{
    Framing, HeadLimits, Parsed, Persist, RequestLine, RequestParser, encode_request,
    parse_request, request_framing,
};
use meshgate_codec::{Known, Method, RequestHead, Target, Version};

use crate::head;

/// One verdict wherever reads end; what is accepted is well-formed, read the same by httparse, and read the same again
/// after it was written.
pub fn request_head(input: &[u8]) {
    for limits in head::LIMITS {
        let limits = limits();
        let mut head = RequestHead::default();
        let parsed = parse_request(input, &limits, &mut head);
        head::same_in_parts(input, parsed, &head, || {
            let mut parser = RequestParser::default();
            move |input: &[u8], head: &mut RequestHead| parser.parse(input, &limits, head)
        });
        match parsed {
            Err(problem) => {
                assert_eq!(head, RequestHead::default());
                assert!(matches!(problem.status(), 400 | 414 | 431 | 505));
            }
            Ok(Parsed::Partial) => assert!(input.len() <= limits.head_bytes_max),
            Ok(Parsed::Head { consumed }) => {
                head::is_well_formed(input, Parsed::Head { consumed }, &head.fields, &limits);
                same_by_httparse(&input[..consumed], &head);
                same_when_written(&head, &limits);
            }
        }
    }
}

fn same_by_httparse(input: &[u8], head: &RequestHead) {
    let mut fields = [httparse::EMPTY_HEADER; 100];
    let mut other = httparse::Request::new(&mut fields);
    let parsed = other.parse(input);
    assert_eq!(parsed, Ok(httparse::Status::Complete(input.len())));
    assert_eq!(other.method, Some(head.method.as_str()));
    let minor = u8::from(head.version == Version::Http11);
    assert_eq!(other.version, Some(minor));
    // An absolute target without a path has one here.
    let mut target = Target::default();
    let path = other.path.unwrap_or_default();
    assert_eq!(target.read(&head.method, path.as_bytes()), Ok(()));
    assert_eq!(target, head.target);
    head::same_fields(&head.fields, other.headers);
}

fn same_when_written(head: &RequestHead, limits: &HeadLimits) {
    let (Ok(authority), Ok(framing)) = (head.authority(), request_framing(head)) else {
        return;
    };
    let authority = authority.map(|authority| authority.as_str());
    let target = head.target.path_and_query();
    let line = RequestLine {
        method: &head.method,
        target: target.unwrap_or(head.target.as_str()),
        authority: authority.unwrap_or_default(),
    };
    let mut out = Vec::new();
    encode_request(line, &head.fields, framing, Persist::Keep, &mut out)
        .expect("what was judged can be said");
    let limits = head::with_our_lines(limits);
    let mut again = RequestHead::default();
    let parsed = parse_request(&out, &limits, &mut again);
    assert_eq!(
        parsed,
        Ok(Parsed::Head {
            consumed: out.len()
        })
    );
    assert_eq!(
        (again.method, again.version),
        (head.method, Version::Http11)
    );
    assert_eq!(again.target.as_str(), line.target);
    assert_eq!(again.fields.count(Known::Host), 1);
    if head.method != Method::Connect && authority.is_some() {
        let found = again.authority().map(|found| found.map(|one| one.as_str()));
        assert_eq!(found, Ok(authority));
    }
    assert_eq!(request_framing(&again), Ok(framing));
    assert!(matches!(
        framing,
        Framing::None | Framing::Length(_) | Framing::Chunked
    ));
    let mut expected = head::undecided(&head.fields);
    expected.remove(Known::Host);
    again.fields.remove(Known::Host);
    assert_eq!(head::undecided(&again.fields), expected);
}
