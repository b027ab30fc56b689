//! What is claimed of the heads of requests and of responses alike.

use meshgate_codec::fields::{Fields, Known};
use std::fmt::Debug;

use meshgate_codec::http1::{BadHead, HeadLimits, Parsed};

use crate::parts;

/// What a head may cost by default, and so little that inputs of a few bytes reach each limit.
pub(crate) const LIMITS: [fn() -> HeadLimits; 2] = [HeadLimits::default, || HeadLimits {
    head_bytes_max: 120,
    fields_max: 4,
    field_bytes_max: 50,
    target_bytes_max: 30,
}];

/// One verdict and one head wherever reads end. `start` makes a parser, which is given a little more at each call.
pub(crate) fn same_in_parts<H, P>(
    input: &[u8],
    whole: Result<Parsed, BadHead>,
    expected: &H,
    start: impl Fn() -> P,
) where
    H: Default + PartialEq + Debug,
    P: FnMut(&[u8], &mut H) -> Result<Parsed, BadHead>,
{
    for ends in parts::ways(input) {
        let (mut parse, mut head) = (start(), H::default());
        let mut parsed = Ok(Parsed::Partial);
        for end in ends {
            parsed = parse(&input[..end], &mut head);
            if parsed != Ok(Parsed::Partial) {
                break;
            }
        }
        assert_eq!(parsed, whole);
        if parsed != Ok(Parsed::Partial) {
            assert_eq!(&head, expected);
        }
    }
}

/// Written again, a head of those limits may be over them by our own lines.
pub(crate) fn with_our_lines(limits: &HeadLimits) -> HeadLimits {
    HeadLimits {
        head_bytes_max: limits.head_bytes_max + 256,
        fields_max: limits.fields_max + 3,
        field_bytes_max: limits.field_bytes_max + 256,
        target_bytes_max: limits.target_bytes_max + 1,
    }
}

/// The head's bytes are whole lines within the limits, and every field is what a field may be.
pub(crate) fn is_well_formed(input: &[u8], parsed: Parsed, fields: &Fields, limits: &HeadLimits) {
    let Parsed::Head { consumed } = parsed else {
        return;
    };
    assert!(consumed <= input.len() && consumed <= limits.head_bytes_max);
    assert!(input[..consumed].ends_with(b"\r\n"));
    assert!(fields.len() <= limits.fields_max);
    for field in fields.iter() {
        assert!(!field.name.is_empty() && field.name.iter().all(|byte| is_token(*byte)));
        assert_eq!(field.known, Known::find(field.name));
        assert!(field.value.iter().all(|byte| is_text(*byte)), "{field:?}");
        let space = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
        assert!(!space(field.value.first()) && !space(field.value.last()));
        assert!(field.name.len() + field.value.len() <= limits.field_bytes_max);
    }
}

/// The fields that another parser found are these.
pub(crate) fn same_fields(ours: &Fields, theirs: &[httparse::Header<'_>]) {
    assert_eq!(ours.len(), theirs.len());
    for (ours, theirs) in ours.iter().zip(theirs) {
        assert_eq!(
            (ours.name, ours.value),
            (theirs.name.as_bytes(), theirs.value)
        );
    }
}

/// What no encoder takes from the fields.
const DECIDED: [Known; 8] = [
    Known::Connection,
    Known::ContentLength,
    Known::Http2Settings,
    Known::KeepAlive,
    Known::ProxyConnection,
    Known::Te,
    Known::TransferEncoding,
    Known::Upgrade,
];

/// The fields without those that an encoder decides.
pub(crate) fn undecided(fields: &Fields) -> Fields {
    let mut fields = fields.clone();
    for name in DECIDED {
        fields.remove(name);
    }
    fields
}

/// RFC 9110 §5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// RFC 9110 §5.5.
fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}
