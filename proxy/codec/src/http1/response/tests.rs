//! Responses as texts, read whole and in parts.

use proptest::prelude::*;

use super::*;

fn read(text: &[u8], step: usize) -> (Result<Parsed, BadHead>, ResponseHead) {
    let mut parser = ResponseParser::default();
    let mut head = ResponseHead::default();
    let mut end = 0;
    loop {
        end = text.len().min(end + step);
        let parsed = parser.parse(&text[..end], &HeadLimits::default(), &mut head);
        if parsed != Ok(Parsed::Partial) || end == text.len() {
            return (parsed, head);
        }
    }
}

/// Every way of reading must end the same way.
fn verdict(text: &[u8]) -> (Result<Parsed, BadHead>, ResponseHead) {
    let whole = read(text, text.len().max(1));
    for step in [1, 3] {
        assert_eq!(
            read(text, step),
            whole,
            "{:?}",
            text.escape_ascii().to_string()
        );
    }
    whole
}

fn check(line: &str, expected: Result<(u16, Version), BadHead>) {
    let text = format!("{line}\r\nA: b\r\n\r\n");
    let (parsed, head) = verdict(text.as_bytes());
    let found = parsed.map(|parsed| {
        assert_eq!(
            parsed,
            Parsed::Head {
                consumed: text.len()
            }
        );
        assert_eq!(head.fields.get("a"), Some(&b"b"[..]));
        (head.status, head.version)
    });
    assert_eq!(found, expected, "{line:?}");
}

#[test]
fn status_lines_are_exact() {
    check("HTTP/1.1 200 OK", Ok((200, Version::Http11)));
    check("HTTP/1.0 404 Not Found\t\u{e4}", Ok((404, Version::Http10)));
    check("HTTP/1.1 100 ", Ok((100, Version::Http11)));
    check("HTTP/1.1 999", Ok((999, Version::Http11)));
    for (line, error) in [
        ("HTTP/1.1  200 OK", BadHead::Status),
        ("HTTP/1.1 20", BadHead::Status),
        ("HTTP/1.1 2000", BadHead::Status),
        ("HTTP/1.1 099 x", BadHead::Status),
        ("HTTP/1.1 000", BadHead::Status),
        ("HTTP/1.1 +20 x", BadHead::Status),
        ("HTTP/1.1 200\tOK", BadHead::Status),
        ("HTTP/1.1 200 O\rK", BadHead::FirstLine),
        ("HTTP/1.1 200 \0", BadHead::FirstLine),
        ("HTTP/1.1", BadHead::FirstLine),
        ("HTTP/1.1200 OK", BadHead::FirstLine),
        ("HTTP/2.0 200 OK", BadHead::Version),
        ("http/1.1 200 OK", BadHead::FirstLine),
        ("ICY 200 OK", BadHead::FirstLine),
        ("\r\nHTTP/1.1 200 OK", BadHead::FirstLine),
        ("HTTP/1.1 200 OK\nX: y", BadHead::LineEnd),
        ("HTTP/1.1 200 OK\r\nX: y\r\n z", BadHead::Folded),
        ("HTTP/1.1 200 OK\r\nX: \0", BadHead::FieldValue),
    ] {
        check(line, Err(error));
    }
    let (partial, _) = verdict(b"HTTP/1.1 200 OK\r\nA: b\r\n");
    assert_eq!(partial, Ok(Parsed::Partial));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// No panic, one verdict wherever reads end, and what is accepted the other parser reads the same.
    #[test]
    fn any_bytes(parts in prop::collection::vec(prop::sample::select(vec![
        "HTTP/1.1 200 OK\r\n", "HTTP/1.0 204\r\n", "HTTP/1.1 ", "404", " ", "\r\n", "\n", "\r", "A: b\r\n", "x:y\r\n",
        "\r\n\r\n", ":", "\0", "\t", "\u{e4}",
    ]), 0..10)) {
        let text = parts.concat();
        let (Ok(Parsed::Head { consumed }), head) = verdict(text.as_bytes()) else {
            return Ok(());
        };
        let mut fields = [httparse::EMPTY_HEADER; 100];
        let mut other = httparse::Response::new(&mut fields);
        prop_assert_eq!(other.parse(text.as_bytes()), Ok(httparse::Status::Complete(consumed)));
        prop_assert_eq!(other.code, Some(head.status));
        prop_assert_eq!(other.headers.len(), head.fields.len());
        for (theirs, ours) in other.headers.iter().zip(head.fields.iter()) {
            prop_assert_eq!((theirs.name.as_bytes(), theirs.value), (ours.name, ours.value));
        }
    }
}
