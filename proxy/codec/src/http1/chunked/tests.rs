//! Bodies as texts, whole and in parts.

use proptest::prelude::*;

use super::*;

/// Data, trailers, and how many bytes the body took; `None` when it did not end.
type Body = (Vec<u8>, Option<(usize, Fields)>);

fn read(text: &[u8], step: usize) -> Result<Body, BadChunk> {
    let mut decoder = Decoder::default();
    let mut data = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let input = &text[at..text.len().min(at + step)];
        let Step { consumed, kind } = decoder.decode(input)?;
        match kind {
            StepKind::More => assert_eq!(consumed, input.len()),
            StepKind::Data(range) => {
                assert_eq!(range.end, consumed);
                assert!(!range.is_empty());
                data.extend_from_slice(&input[range]);
            }
            StepKind::End => {
                assert!(decoder.is_ended());
                return Ok((data, Some((at + consumed, decoder.trailers().clone()))));
            }
        }
        at += consumed;
    }
    Ok((data, None))
}

/// Every way of reading must end the same way.
fn verdict(text: &[u8]) -> Result<Body, BadChunk> {
    let whole = read(text, text.len().max(1));
    for step in [1, 2, 5] {
        assert_eq!(
            read(text, step),
            whole,
            "{:?} by {step}",
            text.escape_ascii().to_string()
        );
    }
    whole
}

fn check(body: &str, expected: Result<(&str, Option<usize>), BadChunk>) {
    let found = verdict(body.as_bytes()).map(|(data, end)| {
        let data = String::from_utf8(data).expect("text");
        (data, end.map(|(bytes, _)| bytes))
    });
    let expected = expected.map(|(data, end)| (data.to_owned(), end));
    assert_eq!(found, expected, "{body:?}");
}

#[test]
fn only_exact_chunks_pass() {
    check("0\r\n\r\n", Ok(("", Some(5))));
    check("000\r\n\r\n", Ok(("", Some(7))));
    check("2\r\nab\r\n0\r\n\r\nGET", Ok(("ab", Some(12))));
    check("2;a=b\r\nab\r\n0\r\nT: 1\r\n\r\n", Ok(("ab", Some(22))));
    check("2;\r\nab\r\n0;x\r\n\r\n", Ok(("ab", Some(15))));
    check(
        "A\r\n0123456789\r\n1\r\nx\r\n0\r\n\r\n",
        Ok(("0123456789x", Some(26))),
    );
    check("2\r\na", Ok(("a", None)));
    check("2\r\nab\r", Ok(("ab", None)));
    check("0\r\n", Ok(("", None)));
    check("0\r\n\r", Ok(("", None)));
    check("0\r\nT: 1\r\n", Ok(("", None)));
    check("ffffffffffffffff\r\nab", Ok(("ab", None)));
    for bad in [
        "x\r\n",
        "\r\n",
        "+2\r\n",
        "-2\r\n",
        "0x2\r\n",
        "2 \r\n",
        " 2\r\n",
        "2\t;a\r\n",
        "2\nab",
        ";a\r\n",
        "2_0\r\n",
        "00000000000000002\r\n",
        "10000000000000000\r\n",
    ] {
        check(bad, Err(BadChunk::Size));
    }
    check("2;a\nb", Err(BadChunk::Extension));
    check("2;a\0b", Err(BadChunk::Extension));
    for bad in [
        "2\rab",
        "2\r\nabX",
        "2\r\nab\n",
        "2\r\nab\rX",
        "0\r\n\n",
        "0\r\nT: 1\n",
        "2;a\rb",
    ] {
        check(bad, Err(BadChunk::LineEnd));
    }
    for bad in [
        "0\r\nT : 1\r\n",
        "0\r\nT: 1\r\n 2\r\n",
        "0\r\n: 1\r\n",
        "0\r\nT: \r1\r\n",
        "0\r\nGET / HTTP/1.1\r\n",
    ] {
        check(bad, Err(BadChunk::Trailer));
    }
}

#[test]
fn extensions_and_trailers_have_limits() {
    let x = |count| "x".repeat(count);
    check(&format!("1;{}\r\na", x(256)), Ok(("a", None)));
    check(&format!("1;{}", x(257)), Err(BadChunk::ExtensionTooLong));
    let chunk = format!("1;{}\r\na\r\n", x(256));
    check(&chunk.repeat(64), Ok((&"a".repeat(64), None)));
    check(
        &format!("{}1;x", chunk.repeat(64)),
        Err(BadChunk::ExtensionTooLong),
    );
    let trailers = |count| format!("0\r\n{}", "a: b\r\n".repeat(count));
    check(
        &format!("{}\r\n", trailers(64)),
        Ok(("", Some(3 + 64 * 6 + 2))),
    );
    check(&trailers(65), Err(BadChunk::TrailersTooLong));
    let long = 16 * 1024 - 5;
    check(
        &format!("0\r\na: {}\r\n\r\n", x(long)),
        Ok(("", Some(3 + 16 * 1024 + 2))),
    );
    check(
        &format!("0\r\na: {}\r\n\r\n", x(long + 1)),
        Err(BadChunk::TrailersTooLong),
    );
    check(
        &format!("0\r\n{}", x(17_000)),
        Err(BadChunk::TrailersTooLong),
    );
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    let part = prop::sample::select(vec![
        "3\r\nabc\r\n",
        "1;a=b\r\nx\r\n",
        "0\r\n",
        "\r\n",
        "T: 1\r\n",
        "\n",
        "\r",
        "5\r\nhe",
        "llo\r\n",
        "0",
        "a",
        ";",
        " ",
        "\0",
        "ffffffffffffffff",
        ":",
    ]);
    prop::collection::vec(part, 0..12).prop_map(|parts| parts.concat().into_bytes())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// No panic, and one verdict wherever reads end.
    #[test]
    fn any_bytes_any_parts(text in prop_oneof![body(), prop::collection::vec(any::<u8>(), 0..60)]) {
        let _ = verdict(&text);
    }

    /// What is written is read the same.
    #[test]
    fn written_bodies_are_read_back(
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 0..5),
        trailers in prop::collection::vec(("[a-zA-Z-]{1,9}", "[ -~]{0,9}"), 0..4),
    ) {
        let mut fields = Fields::default();
        for (name, value) in &trailers {
            fields.append(name.as_str(), value.as_bytes()).unwrap();
        }
        let mut text = Vec::new();
        for chunk in &chunks {
            encode_chunk_head(NonZeroUsize::new(chunk.len()).unwrap(), &mut text);
            text.extend_from_slice(chunk);
            text.extend_from_slice(CHUNK_END);
        }
        encode_last(Some(&fields), &mut text);
        prop_assert_eq!(verdict(&text), Ok((chunks.concat(), Some((text.len(), fields)))));
    }
}

#[test]
fn chunk_heads_are_hexadecimal() {
    for (length, expected) in [
        (1, "1\r\n"),
        (15, "f\r\n"),
        (16, "10\r\n"),
        (65_536, "10000\r\n"),
    ] {
        let mut out = Vec::new();
        encode_chunk_head(NonZeroUsize::new(length).expect("not zero"), &mut out);
        assert_eq!(out, expected.as_bytes());
    }
}
