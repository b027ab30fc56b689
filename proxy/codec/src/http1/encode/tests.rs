//! Heads as texts, and read back.

use proptest::prelude::*;

use super::*;
use crate::http1::{
    HeadLimits, Parsed, parse_request, parse_response, request_framing, response_framing,
};
use crate::{RequestHead, ResponseHead};

fn fields(text: &str) -> Fields {
    let mut fields = Fields::default();
    for line in text.split('|').filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once('=').expect("name=value");
        fields.append(name, value.as_bytes()).expect(line);
    }
    fields
}

fn check_request(
    words: &str,
    lines: &str,
    framing: Framing,
    persist: Persist<'_>,
    expected: Result<&str, Unsayable>,
) {
    let mut words_of = words.splitn(3, ' ');
    let method = words_of
        .next()
        .and_then(|word| Method::parse(word.as_bytes()));
    let line = RequestLine {
        method: &method.expect("a method"),
        target: words_of.next().expect("a target"),
        authority: words_of.next().expect("an authority"),
    };
    let mut out = b"before".to_vec();
    let result = encode_request(line, &fields(lines), framing, persist, &mut out);
    let text = String::from_utf8(out).expect("text");
    let text = text.strip_prefix("before").expect("what was there stays");
    match expected {
        Ok(expected) => assert_eq!(text.replace("\r\n", "|"), expected, "{words}"),
        Err(_) => assert_eq!(text, "", "{words}"),
    }
    assert_eq!(result, expected.map(|_| ()), "{words}");
}

#[test]
fn requests_say_what_was_decided() {
    use Framing::{Announced, Chunked, Length, None, UntilClose};
    use Persist::{Close, Keep, Upgrade};
    check_request(
        "GET / a.test",
        "",
        None,
        Keep,
        Ok("GET / HTTP/1.1|Host: a.test||"),
    );
    check_request(
        "GET / ",
        "",
        None,
        Close,
        Ok("GET / HTTP/1.1|Host: |Connection: close||"),
    );
    check_request(
        "POST /a?b a:1",
        "X-a=1|host=evil|content-length=9|x-b=2|transfer-encoding=chunked|connection=x|te=y|upgrade=z|X-c=3",
        Length(10),
        Keep,
        Ok("POST /a?b HTTP/1.1|Host: a:1|X-a: 1|x-b: 2|X-c: 3|Content-Length: 10||"),
    );
    check_request(
        "PUT / a",
        "content-length=9",
        Chunked,
        Upgrade("websocket"),
        Ok(
            "PUT / HTTP/1.1|Host: a|Transfer-Encoding: chunked|Connection: upgrade|Upgrade: websocket||",
        ),
    );
    check_request(
        "OPTIONS * a",
        "",
        None,
        Keep,
        Ok("OPTIONS * HTTP/1.1|Host: a||"),
    );
    check_request(
        "CONNECT a:1 a:1",
        "",
        None,
        Keep,
        Ok("CONNECT a:1 HTTP/1.1|Host: a:1||"),
    );
    for target in ["", "*", "a", "/\r\nX:", "/#", "/\u{e4}", "http://a/", "/\t"] {
        let words = format!("GET {target} a");
        check_request(&words, "", None, Keep, Err(Unsayable::Target));
    }
    for authority in ["a b", "a\r\nX: y", "a/", "u@a", "a,b"] {
        let words = format!("GET / {authority}");
        check_request(&words, "", None, Keep, Err(Unsayable::Authority));
    }
    for framing in [Announced(1), UntilClose] {
        check_request("GET / a", "", framing, Keep, Err(Unsayable::Framing));
    }
    for protocol in ["", "a\r\nb: c"] {
        check_request(
            "GET / a",
            "",
            None,
            Upgrade(protocol),
            Err(Unsayable::Upgrade),
        );
    }
}

fn check_response(
    status: u16,
    version: Version,
    framing: Framing,
    persist: Persist<'_>,
    expected: Result<&str, Unsayable>,
) {
    let mut out = Vec::new();
    let fields = fields("a=b|content-length=9|connection=x|transfer-encoding=y");
    let line = StatusLine { status, version };
    let result = encode_response(line, &fields, framing, persist, &mut out);
    let text = String::from_utf8(out).expect("text").replace("\r\n", "|");
    assert_eq!(
        result.map(|()| text.as_str()),
        expected,
        "{status} {framing:?}"
    );
}

#[test]
fn responses_say_what_was_decided() {
    use Framing::{Announced, Chunked, Length, None, UntilClose};
    use Persist::{Close, Keep, Upgrade};
    use Version::{Http10, Http11};
    check_response(
        200,
        Http11,
        Length(0),
        Keep,
        Ok("HTTP/1.1 200 OK|a: b|Content-Length: 0||"),
    );
    check_response(
        200,
        Http10,
        Length(u64::MAX),
        Keep,
        Ok("HTTP/1.0 200 OK|a: b|Content-Length: 18446744073709551615|Connection: keep-alive||"),
    );
    check_response(
        404,
        Http11,
        Chunked,
        Close,
        Ok("HTTP/1.1 404 Not Found|a: b|Transfer-Encoding: chunked|Connection: close||"),
    );
    check_response(
        299,
        Http11,
        UntilClose,
        Keep,
        Ok("HTTP/1.1 299 |a: b|Connection: close||"),
    );
    check_response(
        204,
        Http11,
        Length(0),
        Keep,
        Ok("HTTP/1.1 204 No Content|a: b||"),
    );
    check_response(
        304,
        Http11,
        Announced(5),
        Keep,
        Ok("HTTP/1.1 304 Not Modified|a: b|Content-Length: 5||"),
    );
    check_response(
        101,
        Http11,
        None,
        Upgrade("x"),
        Ok("HTTP/1.1 101 Switching Protocols|a: b|Connection: upgrade|Upgrade: x||"),
    );
    for (status, version, framing) in [
        (204, Http11, Length(1)),
        (204, Http11, Chunked),
        (100, Http11, UntilClose),
        (103, Http11, Announced(1)),
        (304, Http11, Length(1)),
        (304, Http11, Chunked),
        (200, Http10, Chunked),
    ] {
        check_response(status, version, framing, Keep, Err(Unsayable::Framing));
    }
    for (status, version) in [(99, Http11), (0, Http11), (1000, Http11), (100, Http10)] {
        check_response(status, version, None, Keep, Err(Unsayable::Status));
    }
}

fn lines() -> impl Strategy<Value = Vec<(String, Vec<u8>)>> {
    let name = prop_oneof![
        "[a-zA-Z0-9!#$%&'*+.^_`|~-]{1,20}",
        prop::sample::select(Known::ALL).prop_map(|known| known.as_str().to_owned()),
    ];
    let byte = prop_oneof![9 => b' '..=b'~', 1 => Just(b'\t'), 1 => 0x80..=0xff_u8];
    prop::collection::vec((name, prop::collection::vec(byte, 0..40)), 0..12)
}

/// What is written of them.
fn written(lines: &[(String, Vec<u8>)], request: bool) -> (Fields, Fields) {
    let (mut given, mut kept) = (Fields::default(), Fields::default());
    for (name, value) in lines {
        given.append(name.as_str(), value).expect("a good field");
        let decided = match request {
            true => DECIDED_IN_REQUESTS,
            false => DECIDED,
        };
        if !Known::find(name.as_bytes()).is_some_and(|known| decided.has(known)) {
            kept.append(name.as_str(), value).expect("a good field");
        }
    }
    (given, kept)
}

fn persists() -> impl Strategy<Value = Persist<'static>> {
    prop::sample::select(vec![
        Persist::Keep,
        Persist::Close,
        Persist::Upgrade("websocket"),
    ])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn requests_are_read_back(
        method in "[A-Z]{1,8}|GET|CONNECT",
        path in "/[!-\"$-~]{0,30}",
        authority in "[a-z]{1,9}(:[0-9]{1,4})?",
        lines in lines(),
        framing in prop_oneof![
            Just(Framing::None), Just(Framing::Chunked), (0..10_u64.pow(19)).prop_map(Framing::Length)
        ],
        persist in persists(),
    ) {
        let method = Method::parse(method.as_bytes()).expect("a method");
        prop_assume!(method != Method::Connect);
        let (given, kept) = written(&lines, true);
        let line = RequestLine { method: &method, target: &path, authority: &authority };
        let mut out = Vec::new();
        encode_request(line, &given, framing, persist, &mut out).expect("sayable");
        let length = out.len();
        out.extend_from_slice(b"body\r\n\r\n");
        let mut head = RequestHead::default();
        let parsed = parse_request(&out, &HeadLimits::default(), &mut head);
        prop_assert_eq!(parsed, Ok(Parsed::Head { consumed: length }));
        prop_assert_eq!((&head.method, head.target.as_str()), (&method, path.as_str()));
        prop_assert_eq!(head.authority().unwrap().map(|found| found.as_str()), Some(authority.as_str()));
        prop_assert_eq!(request_framing(&head), Ok(framing));
        prop_assert_eq!(head.persists(), persist != Persist::Close);
        head.fields.remove_all(DECIDED_IN_REQUESTS);
        prop_assert_eq!(&head.fields, &kept);
    }

    #[test]
    fn responses_are_read_back(
        status in prop_oneof![100..1000_u16, Just(204), Just(304), Just(200)],
        version in prop::sample::select(vec![Version::Http10, Version::Http11]),
        lines in lines(),
        framing in prop_oneof![
            Just(Framing::None), Just(Framing::Chunked), Just(Framing::UntilClose),
            (0..10_u64.pow(19)).prop_map(Framing::Length), (0..9_u64).prop_map(Framing::Announced),
        ],
        persist in persists(),
    ) {
        let (given, kept) = written(&lines, false);
        let mut out = Vec::new();
        if encode_response(StatusLine { status, version }, &given, framing, persist, &mut out).is_err() {
            prop_assert!(out.is_empty());
            return Ok(());
        }
        let length = out.len();
        out.extend_from_slice(b"\r\n\r\n");
        let mut head = ResponseHead::default();
        let parsed = parse_response(&out, &HeadLimits::default(), &mut head);
        prop_assert_eq!(parsed, Ok(Parsed::Head { consumed: length }));
        prop_assert_eq!((head.status, head.version), (status, version));
        // Without a body these are answers to HEAD; else they mean the same to everybody.
        let method = match framing {
            Framing::None | Framing::Announced(_) => Method::Head,
            _ => Method::Get,
        };
        let expected = match (status, framing) {
            (204 | 100..=199, _) => Framing::None,
            _ => framing,
        };
        prop_assert_eq!(response_framing(&head, &method), Ok(expected));
        if framing == Framing::UntilClose {
            prop_assert!(!head.persists());
        }
        head.fields.remove_all(DECIDED);
        prop_assert_eq!(&head.fields, &kept);
    }
}
