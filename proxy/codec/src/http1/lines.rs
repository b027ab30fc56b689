//! Lines of a head or of trailers: found, judged and taken over one by one.

use super::limits::{BadHead, HeadLimits, OverLimit, Parsed};
use crate::fields::{FieldLine, Fields, Intake, Known};
use crate::octets;

/// Where reading stands in a head of which ever more comes in.
///
/// What is complete is never looked at again, so that a head in a thousand reads costs as much as in one, and limits
/// count as soon as they are passed: a verdict depends on the bytes alone, not on where reads end.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Cursor {
    /// Where the present line begins.
    pub(super) at: usize,
    /// No line ends before this.
    searched: usize,
}

impl Cursor {
    /// The next line without its end; `None` until it is complete.
    #[inline]
    pub(super) fn line<'i>(
        &mut self,
        input: &'i [u8],
        limits: &HeadLimits,
        line_bytes_max: usize,
        too_long: OverLimit,
    ) -> Result<Option<&'i [u8]>, BadHead> {
        let head_left = limits.head_bytes_max.saturating_sub(self.at);
        let line_max = line_bytes_max.saturating_add(END.len());
        let (most, too_long) = match head_left < line_max {
            true => (head_left, OverLimit::Head),
            false => (line_max, too_long),
        };
        let end = input.len().min(self.at + most);
        let from = self.searched.max(self.at);
        let found = memchr::memchr(b'\n', input.get(from..end).unwrap_or_default());
        let Some(found) = found else {
            self.searched = end;
            return match input.len() - self.at.min(input.len()) < most {
                true => Ok(None),
                false => Err(too_long.into()),
            };
        };
        let feed = from + found;
        let line = input.get(self.at..feed).unwrap_or_default();
        let line = line.strip_suffix(b"\r").ok_or(BadHead::LineEnd)?;
        self.at = feed + 1;
        Ok(Some(line))
    }

    /// Takes the lines up to the empty one.
    pub(super) fn fields(
        &mut self,
        input: &[u8],
        limits: &HeadLimits,
        fields: &mut Fields,
    ) -> Result<Parsed, BadHead> {
        let mut intake = Intake::new(fields, input);
        let line_max = limits.field_bytes_max.min(usize::from(u16::MAX));
        loop {
            let from = self.at;
            let Some(line) = self.line(input, limits, line_max, OverLimit::Field)? else {
                return Ok(Parsed::Partial);
            };
            if line.is_empty() {
                return Ok(Parsed::Head { consumed: self.at });
            }
            if intake.len() >= limits.fields_max {
                return Err(OverLimit::Fields.into());
            }
            intake.push(from..self.at, field(line)?)?;
        }
    }
}

/// Behind a verdict, the parser of a head begins anew; of a head that is refused, nothing stays.
#[inline]
pub(super) fn settle<P: Default>(
    parser: &mut P,
    parsed: Result<Parsed, BadHead>,
    forget: impl FnOnce(),
) -> Result<Parsed, BadHead> {
    if parsed != Ok(Parsed::Partial) {
        *parser = P::default();
    }
    if parsed.is_err() {
        forget();
    }
    parsed
}

const END: &[u8] = b"\r\n";

/// Judges one field line without its end (RFC 9112 §5).
#[inline]
pub(super) fn field(line: &[u8]) -> Result<FieldLine<'_>, BadHead> {
    let colon = octets::colon(line).unwrap_or(line.len());
    let (name, rest) = line.split_at_checked(colon).unwrap_or_default();
    let known = Known::find(name);
    // A known name is a token.
    if rest.is_empty() || known.is_none() && !octets::is_token(name) {
        return Err(what_is_wrong(line));
    }
    let rest = rest.get(1..).unwrap_or_default();
    let value = octets::trim(rest);
    if !octets::is_value(value) {
        return Err(BadHead::FieldValue);
    }
    // The value begins with no space, so one byte more with a space in front is that space.
    let exact = rest.len() == value.len() + 1 && rest.first() == Some(&b' ');
    Ok(FieldLine {
        name,
        known,
        value,
        exact,
    })
}

/// Why a line has no name.
#[cold]
fn what_is_wrong(line: &[u8]) -> BadHead {
    let (name, rest) = line
        .split_at_checked(octets::token_length(line))
        .unwrap_or_default();
    match rest {
        [b' ' | b'\t', ..] if name.is_empty() => BadHead::Folded,
        [b' ' | b'\t', ..] => BadHead::SpaceBeforeColon,
        _ => BadHead::FieldName,
    }
}
