//! Requests as texts, read whole and in parts.

use proptest::prelude::*;

use super::*;
use crate::target::BadTarget;

/// Feeds ever more of the text; the verdict and how many bytes had come by then.
fn read(text: &[u8], step: usize, limits: &HeadLimits) -> (Result<Parsed, BadHead>, RequestHead) {
    let mut parser = RequestParser::default();
    let mut head = RequestHead::default();
    let mut end = 0;
    loop {
        end = text.len().min(end + step);
        let parsed = parser.parse(&text[..end], limits, &mut head);
        if parsed != Ok(Parsed::Partial) || end == text.len() {
            return (parsed, head);
        }
    }
}

/// Every way of reading must end the same way.
fn verdict(text: &[u8], limits: &HeadLimits) -> Result<Option<(usize, RequestHead)>, BadHead> {
    let (whole, head) = read(text, text.len().max(1), limits);
    for step in [1, 2, 7] {
        let (parsed, other) = read(text, step, limits);
        assert_eq!(
            parsed,
            whole,
            "{:?} by {step}",
            text.escape_ascii().to_string()
        );
        assert_eq!(other, head);
    }
    match whole? {
        Parsed::Partial => Ok(None),
        Parsed::Head { consumed } => Ok(Some((consumed, head))),
    }
}

/// The fields that are left after the first line, as `name=value|…`; what follows the head is `rest`.
fn check(text: &str, expected: Result<&str, BadHead>) {
    let found = verdict(text.as_bytes(), &HeadLimits::default()).map(|found| match found {
        None => "partial".to_owned(),
        Some((consumed, head)) => {
            let mut shown = format!("{} {}", head.method, head.target.as_str());
            for field in head.fields.iter() {
                let name = String::from_utf8_lossy(field.name);
                let value = String::from_utf8_lossy(field.value);
                shown.push_str(&format!("|{name}={value}"));
            }
            if consumed < text.len() {
                shown.push_str(&format!(" rest {:?}", &text[consumed..]));
            }
            shown
        }
    });
    assert_eq!(found.as_deref(), expected.as_ref().map(|s| *s), "{text:?}");
}

#[test]
fn well_formed_heads() {
    check("GET / HTTP/1.1\r\n\r\n", Ok("GET /"));
    check("GET / HTTP/1.0\r\nHost: a\r\n\r\n", Ok("GET /|Host=a"));
    check("\r\nGET / HTTP/1.1\r\n\r\n", Ok("GET /"));
    check(
        "PURGE /a?b HTTP/1.1\r\nHOST:a\r\nX: \t b c\t \r\ne:\r\nf: \r\ng: \u{e4}\tx\r\n\r\nbody",
        Ok("PURGE /a?b|HOST=a|X=b c|e=|f=|g=\u{e4}\tx rest \"body\""),
    );
    check("", Ok("partial"));
    check("\r", Ok("partial"));
    check("\r\n", Ok("partial"));
    check("GET / HTTP/1.1\r\nHost: a\r\n\r", Ok("partial"));
    check("GET / HTTP/1.1\r\nHost: a", Ok("partial"));
}

#[test]
fn first_lines_are_exact() {
    let byte = BadHead::Target(BadTarget::Byte);
    for (line, error) in [
        ("GET  / HTTP/1.1", byte),
        ("GET /  HTTP/1.1", byte),
        ("GET /a b HTTP/1.1", byte),
        ("GET / HTTP/1.1 ", BadHead::FirstLine),
        ("GET /#a HTTP/1.1", byte),
        ("GET /\u{e4} HTTP/1.1", byte),
        ("GET /\ra HTTP/1.1", byte),
        ("GET\t/ HTTP/1.1", BadHead::Method),
        ("GET /", BadHead::FirstLine),
        ("GET", BadHead::Method),
        (" GET / HTTP/1.1", BadHead::Method),
        ("G:T / HTTP/1.1", BadHead::Method),
        ("\x16\x03\x01", BadHead::Method),
        ("GET / HTTP/2.0", BadHead::Version),
        ("PRI * HTTP/2.0", BadHead::Version),
        ("GET / HTTP/1.2", BadHead::Version),
        ("GET / http/1.1", BadHead::FirstLine),
        ("GET / HTTP/11", BadHead::FirstLine),
        ("GET / HTTP/1.10", BadHead::FirstLine),
        ("GET HTTP/1.1", BadHead::FirstLine),
        ("INVALID CONNECTION PREFACE", BadHead::OtherProtocol),
        ("HELO a b", BadHead::OtherProtocol),
        ("SSH x y z HTTP", BadHead::OtherProtocol),
        ("GET  HTTP/1.1", byte),
        ("GET * HTTP/1.1", BadHead::Target(BadTarget::Form)),
        ("\r\n\r\nGET / HTTP/1.1", BadHead::EmptyLines),
        ("\nGET / HTTP/1.1", BadHead::LineEnd),
    ] {
        check(&format!("{line}\r\nHost: a\r\n\r\n"), Err(error));
    }
    let method = "X".repeat(33);
    check(
        &format!("{method} / HTTP/1.1\r\n\r\n"),
        Err(BadHead::Method),
    );
    check("GET / HTTP/1.1\nHost: a\r\n\r\n", Err(BadHead::LineEnd));
}

#[test]
fn fields_are_exact() {
    for (lines, error) in [
        ("X: a\r\n b\r\n", BadHead::Folded),
        (" X: a\r\n", BadHead::Folded),
        ("X : a\r\n", BadHead::SpaceBeforeColon),
        ("X\t: a\r\n", BadHead::SpaceBeforeColon),
        (": a\r\n", BadHead::FieldName),
        ("X\r\n", BadHead::FieldName),
        ("X\0: a\r\n", BadHead::FieldName),
        ("X\u{e4}: a\r\n", BadHead::FieldName),
        ("X(y): a\r\n", BadHead::FieldName),
        ("X: a\nY: b\r\n", BadHead::LineEnd),
        ("X: a\n\r\n", BadHead::LineEnd),
        ("X: a\r\n\n", BadHead::LineEnd),
        ("X: a\rb\r\n", BadHead::FieldValue),
        ("X: a\r\r\n", BadHead::FieldValue),
        ("X: a\0b\r\n", BadHead::FieldValue),
        ("X: \x0b\r\n", BadHead::FieldValue),
        ("X: \x7f\r\n", BadHead::FieldValue),
        ("\r: a\r\n", BadHead::FieldName),
    ] {
        let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
        check(&head, Err(error));
    }
}

#[test]
fn limits_count_while_the_head_comes_in() {
    let limits = HeadLimits {
        head_bytes_max: 100,
        fields_max: 3,
        field_bytes_max: 40,
        target_bytes_max: 20,
    };
    let check = |text: &str, expected: Result<bool, (BadHead, u16)>| {
        let found = verdict(text.as_bytes(), &limits)
            .map(|head| head.is_some())
            .map_err(|error| (error, error.status()));
        assert_eq!(found, expected, "{text:?}");
    };
    let first = "GET / HTTP/1.1\r\n";
    let x = |count| "x".repeat(count);
    check(&format!("GET /{} HTTP/1.1\r\n\r\n", x(19)), Ok(true));
    let target = Err((OverLimit::Target.into(), 414));
    check(&format!("GET /{} HTTP/1.1\r\n\r\n", x(20)), target);
    check(&format!("GET /{}", x(60)), target);
    check(&format!("{first}{}: {}\r\n\r\n", x(2), x(36)), Ok(true));
    let field = Err((OverLimit::Field.into(), 431));
    check(&format!("{first}{}: {}\r\n\r\n", x(2), x(37)), field);
    check(&format!("{first}{}", x(42)), field);
    check(&format!("{first}{}", x(41)), Ok(false));
    check(&format!("{first}a:b\r\na:b\r\na:b\r\n\r\n"), Ok(true));
    let many = Err((OverLimit::Fields.into(), 431));
    check(&format!("{first}a:b\r\na:b\r\na:b\r\na:b\r\n"), many);
    let two = format!("{first}a:{}\r\nb:{}\r\n", x(38), x(36));
    check(&format!("{two}\r\n"), Ok(true));
    check(&two, Ok(false));
    let long = Err((OverLimit::Head.into(), 431));
    check(&format!("{two}c"), Ok(false));
    check(&format!("{two}c:"), long);
    check(&format!("{two}c\r\n"), long);
    check(
        &format!("{}\r\n\r\n", two.trim_end().replacen("b:", "b:y", 1)),
        long,
    );
    check("GET / HTTP/3.0\r\n", Err((BadHead::Version, 505)));
}

#[test]
fn the_usual_limits() {
    let limits = HeadLimits::default();
    let check = |text: String, expected: Result<bool, BadHead>| {
        let (whole, _) = read(text.as_bytes(), text.len(), &limits);
        let (slow, _) = read(text.as_bytes(), 1, &limits);
        assert_eq!(slow, whole);
        let found = whole.map(|parsed| parsed != Parsed::Partial);
        assert_eq!(found, expected, "{} bytes", text.len());
    };
    let x = |count| "x".repeat(count);
    let first = "GET / HTTP/1.1\r\n";
    check(format!("GET /{} HTTP/1.1\r\n\r\n", x(8191)), Ok(true));
    check(format!("GET /{}", x(9000)), Err(OverLimit::Target.into()));
    check(format!("{first}a:{}\r\n\r\n", x(16 * 1024 - 2)), Ok(true));
    check(
        format!("{first}a:{}", x(16 * 1024)),
        Err(OverLimit::Field.into()),
    );
    check(format!("{first}{}\r\n", "a:\r\n".repeat(100)), Ok(true));
    check(
        format!("{first}{}", "a:\r\n".repeat(101)),
        Err(OverLimit::Fields.into()),
    );
    let line = format!("a:{}\r\n", x(12 * 1024));
    check(format!("{first}{}\r\n", line.repeat(5)), Ok(true));
    check(
        format!("{first}{}", line.repeat(6)),
        Err(OverLimit::Head.into()),
    );
    check(format!("{first}{}b", line.repeat(5)), Ok(false));
}

/// A slow head must not cost its square: what was a line once may be noise at the next call.
#[test]
fn complete_lines_are_not_read_again() {
    let text = format!(
        "GET /a HTTP/1.1\r\n{}\r\n",
        "Name: value\r\nb:c\r\n".repeat(40)
    );
    let limits = HeadLimits::default();
    let (expected, whole) = read(text.as_bytes(), text.len(), &limits);
    let (mut parser, mut head) = (RequestParser::default(), RequestHead::default());
    let mut input = text.clone().into_bytes();
    let mut parsed = Ok(Parsed::Partial);
    for end in 1..=input.len() {
        parsed = parser.parse(&input[..end], &limits, &mut head);
        if input[end - 1] == b'\n' {
            input[..end].fill(0);
        }
    }
    assert_eq!((parsed, head), (expected, whole));
}

#[test]
fn a_reader_starts_anew_after_each_head() {
    let (mut parser, mut head) = (RequestParser::default(), RequestHead::default());
    let limits = HeadLimits::default();
    let two = b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nPOST /2 HTTP/1.0\r\nX: b\r\n\r\n";
    let first = parser.parse(two, &limits, &mut head);
    assert_eq!(first, Ok(Parsed::Head { consumed: 28 }));
    assert_eq!(head.target.as_str(), "/1");
    let second = parser.parse(&two[28..], &limits, &mut head);
    assert_eq!(second, Ok(Parsed::Head { consumed: 26 }));
    assert_eq!((head.target.as_str(), head.fields.len()), ("/2", 1));
    let bad = parser.parse(b"GET / HTTP/1.1\r\nX: c\r\n\n", &limits, &mut head);
    assert_eq!(
        (bad, &head),
        (Err(BadHead::LineEnd), &RequestHead::default())
    );
}

/// Heads that are nearly right.
fn nearly() -> impl Strategy<Value = Vec<u8>> {
    let part = prop::sample::select(vec![
        "GET / HTTP/1.1\r\n",
        "POST http://a/b HTTP/1.0\r\n",
        "GET /",
        " HTTP/1.1\r\n",
        "Host: a\r\n",
        "X-Long-Name:value \t\r\n",
        "a: b\r\n",
        "\r\n",
        "\r\n\r\n",
        "\n",
        "\r",
        "\0",
        " ",
        "\t",
        ":",
        "x",
        "\u{e4}",
        "#",
        "Content-Length: 5\r\n",
        "*",
        "OPTIONS",
        "CONNECT a:1",
        ",",
        "Transfer-Encoding : chunked\r\n",
    ]);
    let noise = prop::collection::vec(any::<u8>(), 0..3);
    prop::collection::vec(
        prop_oneof![9 => part.prop_map(|text| text.as_bytes().to_vec()), 1 => noise],
        0..14,
    )
    .prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// No panic, and one verdict wherever reads end.
    #[test]
    fn any_bytes_any_parts(text in prop_oneof![nearly(), prop::collection::vec(any::<u8>(), 0..200)]) {
        let limits = HeadLimits { head_bytes_max: 120, fields_max: 4, field_bytes_max: 50, target_bytes_max: 30 };
        for limits in [limits, HeadLimits::default()] {
            let _ = verdict(&text, &limits);
        }
    }

    /// What is accepted here, the other parser accepts too, and reads the same.
    #[test]
    fn the_other_parser_agrees(text in nearly()) {
        let Ok(Some((consumed, head))) = verdict(&text, &HeadLimits::default()) else {
            return Ok(());
        };
        let mut fields = [httparse::EMPTY_HEADER; 100];
        let mut other = httparse::Request::new(&mut fields);
        prop_assert_eq!(other.parse(&text), Ok(httparse::Status::Complete(consumed)));
        prop_assert_eq!(other.method, Some(head.method.as_str()));
        let minor = u8::from(head.version == Version::Http11);
        prop_assert_eq!(other.version, Some(minor));
        if head.target.authority().is_none() {
            prop_assert_eq!(other.path, Some(head.target.as_str()));
        }
        prop_assert_eq!(other.headers.len(), head.fields.len());
        for (theirs, ours) in other.headers.iter().zip(head.fields.iter()) {
            prop_assert_eq!((theirs.name.as_bytes(), theirs.value), (ours.name, ours.value));
        }
    }
}
