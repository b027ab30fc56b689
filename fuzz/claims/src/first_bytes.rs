//! What a connection speaks.

use meshgate_codec::http1::{HeadLimits, Parsed, parse_request};
use meshgate_codec::{Method, RequestHead, Spoken};

/// The verdict does not change with more bytes, comes in time, and is that of the parser behind it.
pub fn first_bytes(input: &[u8]) {
    let verdict = (0..=input.len()).find_map(|end| Spoken::first(&input[..end]));
    assert_eq!(Spoken::first(input), verdict);
    for end in 0..=input.len() {
        let early = Spoken::first(&input[..end]);
        assert!(early.is_none() || early == verdict);
    }
    assert!(verdict.is_some() || input.len() < Spoken::BYTES_MAX);
    let expected = match input {
        [0x16, 0x03, ..] => Some(Spoken::Tls),
        _ if input.starts_with(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n") => Some(Spoken::Http2),
        _ if is_plain_request(input) => Some(Spoken::Http1),
        _ => return,
    };
    assert_eq!(verdict, expected);
}

/// A whole request with a method of the registry.
fn is_plain_request(input: &[u8]) -> bool {
    let mut head = RequestHead::default();
    let parsed = parse_request(input, &HeadLimits::default(), &mut head);
    let starts = input.first().is_some_and(u8::is_ascii_uppercase);
    starts && matches!(parsed, Ok(Parsed::Head { .. })) && !matches!(head.method, Method::Other(_))
}
