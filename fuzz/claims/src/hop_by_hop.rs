//! What is taken out of a message on its way.

use meshgate_codec::http1::{HeadLimits, Parsed, clean_trailers, parse_request, strip_hop_by_hop};
use meshgate_codec::{Fields, RequestHead};

/// Input: field lines. What concerns one connection goes, and what `Connection` names unless it is protected; all else
/// stays as it was. Trailers tell nothing that was decided from a head.
pub fn hop_by_hop(input: &[u8]) {
    let text = [b"GET / HTTP/1.1\r\n", input, b"\r\n\r\n"].concat();
    let mut head = RequestHead::default();
    let parsed = parse_request(&text, &HeadLimits::default(), &mut head);
    if !matches!(parsed, Ok(Parsed::Head { .. })) {
        return;
    }
    stripping(&head.fields);
    trailers(&head.fields);
}

/// RFC 9110 §7.6.1.
const HOP_BY_HOP: [&str; 7] = [
    "connection",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "upgrade",
];

/// What naming it in `Connection` does not remove.
const PROTECTED: [&str; 11] = [
    "authorization",
    "cache-control",
    "cookie",
    "forwarded",
    "host",
    "set-cookie",
    "traceparent",
    "tracestate",
    "x-real-ip",
    "x-request-id",
    "x-forwarded-client-cert",
];

const PROTECTED_FAMILIES: [&str; 3] = ["content-", "meshgate-", "x-forwarded-"];

const OPTIONS_MAX: usize = 64;

type Lines = Vec<(String, Vec<u8>)>;

fn lines(fields: &Fields) -> Lines {
    fields
        .iter()
        .map(|field| {
            let name = String::from_utf8_lossy(field.name).to_ascii_lowercase();
            (name, field.value.to_vec())
        })
        .collect()
}

fn is_protected(name: &str) -> bool {
    PROTECTED.contains(&name)
        || PROTECTED_FAMILIES
            .iter()
            .any(|family| name.starts_with(family))
}

/// The elements of all lines of a list, in lower case.
fn list(lines: &Lines, name: &str) -> Vec<String> {
    lines
        .iter()
        .filter(|(other, _)| other == name)
        .flat_map(|(_, value)| value.split(|byte| *byte == b','))
        .map(|element| {
            let text = String::from_utf8_lossy(element).to_ascii_lowercase();
            text.trim_matches([' ', '\t']).to_owned()
        })
        .filter(|element| !element.is_empty())
        .collect()
}

fn stripping(fields: &Fields) {
    let before = lines(fields);
    let options = list(&before, "connection");
    let mut stripped = fields.clone();
    let verdict = strip_hop_by_hop(&mut stripped);
    if options.len() > OPTIONS_MAX {
        assert!(verdict.is_err());
        return;
    }
    let learned = verdict.expect("no more options than may be");
    let takes_trailers = list(&before, "te").iter().any(|one| one == "trailers");
    assert_eq!(learned.takes_trailers, takes_trailers);
    let goes = |name: &String| {
        HOP_BY_HOP.contains(&name.as_str()) || (options.contains(name) && !is_protected(name))
    };
    let expected: Lines = before.into_iter().filter(|(name, _)| !goes(name)).collect();
    assert_eq!(lines(&stripped), expected);
    let again = strip_hop_by_hop(&mut stripped);
    assert!(again.is_ok_and(|learned| !learned.takes_trailers));
    assert_eq!(lines(&stripped), expected);
}

fn trailers(fields: &Fields) {
    let mut cleaned = fields.clone();
    clean_trailers(&mut cleaned);
    let left = lines(&cleaned);
    for (name, _) in &left {
        assert!(!HOP_BY_HOP.contains(&name.as_str()) && !is_protected(name));
    }
    // Nothing is made up or changes places.
    let mut rest = lines(fields).into_iter();
    assert!(left.iter().all(|line| rest.any(|other| other == *line)));
    clean_trailers(&mut cleaned);
    assert_eq!(lines(&cleaned), left);
}
