//! `traceparent` (W3C Trace Context §3.2): who asks, within which trace.

use std::fmt;

use meshgate_codec::{Fields, Known};

use crate::headers::set_with;

/// Ids of a trace and of the span within it that asks. Neither is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TraceParent {
    pub(crate) trace_id: u128,
    pub(crate) span: u64,
    /// Whether who asks records this trace.
    pub(crate) sampled: bool,
}

/// `00-<32 hex>-<16 hex>-<2 hex>`; later versions may be longer.
const LENGTH: usize = 55;
/// The only flag that version 00 has.
const SAMPLED: u8 = 1;

impl TraceParent {
    /// The first of a trace, by chance.
    pub(crate) fn new([high, low, span]: [u64; 3], sampled: bool) -> Self {
        // An id of zeros is none; one bit less of chance costs nothing.
        Self {
            trace_id: (u128::from(high) << 64) | u128::from(low | 1),
            span: span | 1,
            sampled,
        }
    }

    /// What a request's fields say; nothing when it is malformed or said twice.
    pub(crate) fn of(fields: &Fields) -> Option<Self> {
        let mut said = fields.all(Known::Traceparent);
        let (first, second) = (said.next()?, said.next());
        Self::parse(first).filter(|_| second.is_none())
    }

    fn parse(value: &[u8]) -> Option<Self> {
        let (known, more) = value.split_at_checked(LENGTH)?;
        let dashes = known[2] == b'-' && known[35] == b'-' && known[52] == b'-';
        let version = hexadecimal(&known[..2])?;
        let complete = match version {
            0 => more.is_empty(),
            0xff => false,
            _ => more.is_empty() || more[0] == b'-',
        };
        let trace_id = hexadecimal(&known[3..35])?;
        let span = u64::try_from(hexadecimal(&known[36..52])?).ok()?;
        let flags = u8::try_from(hexadecimal(&known[53..])?).ok()?;
        (dashes && complete && trace_id != 0 && span != 0).then_some(Self {
            trace_id,
            span,
            sampled: flags & SAMPLED != 0,
        })
    }

    /// Says it in place of what was said before.
    pub(crate) fn write(self, fields: &mut Fields) {
        set_with(fields, Known::Traceparent, |value| {
            value.octet(0).mark('-');
            value.hexadecimal((self.trace_id >> 64) as u64);
            value.hexadecimal(self.trace_id as u64).mark('-');
            value.hexadecimal(self.span).mark('-');
            value.octet(if self.sampled { SAMPLED } else { 0 });
        });
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flags = if self.sampled { SAMPLED } else { 0 };
        write!(
            f,
            "00-{:032x}-{:016x}-{flags:02x}",
            self.trace_id, self.span
        )
    }
}

/// Digits in lower case, at most 32 of them.
fn hexadecimal(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |number: u128, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some((number << 4) | u128::from(value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_request_says_of_its_trace() {
        const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
        const SPAN: &str = "b7ad6b7169203331";
        fn check(said: &[&str], sampled: Option<bool>) {
            let mut fields = Fields::default();
            for value in said {
                fields.append("traceparent", value.as_bytes()).unwrap();
            }
            let expected = sampled.map(|sampled| TraceParent {
                trace_id: u128::from_str_radix(TRACE, 16).unwrap(),
                span: u64::from_str_radix(SPAN, 16).unwrap(),
                sampled,
            });
            assert_eq!(TraceParent::of(&fields), expected, "{said:?}");
            if let Some(parent) = expected {
                parent.write(&mut fields);
                assert_eq!(TraceParent::of(&fields), expected);
                let written = parent.to_string();
                assert_eq!(fields.get("traceparent"), Some(written.as_bytes()));
            }
        }
        let usual = format!("00-{TRACE}-{SPAN}-01");
        check(&[&usual], Some(true));
        check(&[&format!("00-{TRACE}-{SPAN}-00")], Some(false));
        // Flags that are not known yet, and versions.
        check(&[&format!("00-{TRACE}-{SPAN}-fe")], Some(false));
        check(&[&format!("cc-{TRACE}-{SPAN}-03-more")], Some(true));
        check(&[&format!("cc-{TRACE}-{SPAN}-01")], Some(true));
        check(&[&format!("cc-{TRACE}-{SPAN}-01.more")], None);
        check(&[&format!("ff-{TRACE}-{SPAN}-01")], None);
        check(&[&format!("{usual}-more")], None);
        check(&[&format!("{usual}x")], None);
        check(&[&usual[..54]], None);
        check(&[&usual.to_uppercase()], None);
        check(&[&usual.replace('-', "_")], None);
        check(&[&format!("00-{}-{SPAN}-01", "0".repeat(32))], None);
        check(&[&format!("00-{TRACE}-{}-01", "0".repeat(16))], None);
        check(&[&usual, &usual], None);
        check(&["", ""], None);
        check(&[], None);
    }
}
