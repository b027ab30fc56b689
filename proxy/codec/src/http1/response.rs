//! Heads of responses.

use super::limits::{BadHead, HeadLimits, OverLimit, Parsed};
use super::lines::{self, Cursor};
use crate::head::ResponseHead;
use crate::octets;
use crate::status;
use crate::version::Version;

/// Reads one head after the other, each in as many steps as it comes in.
#[derive(Clone, Default, Debug)]
pub struct ResponseParser {
    cursor: Cursor,
    in_fields: bool,
}

impl ResponseParser {
    /// Reads on, as [`RequestParser::parse`](super::RequestParser::parse) does.
    #[inline]
    pub fn parse(
        &mut self,
        input: &[u8],
        limits: &HeadLimits,
        head: &mut ResponseHead,
    ) -> Result<Parsed, BadHead> {
        let parsed = self.advance(input, limits, head);
        lines::settle(self, parsed, || head.clear())
    }

    fn advance(
        &mut self,
        input: &[u8],
        limits: &HeadLimits,
        head: &mut ResponseHead,
    ) -> Result<Parsed, BadHead> {
        if !self.in_fields {
            // No empty line is tolerated here: it would be a byte behind the end of the answer before.
            if input.first().is_some_and(|first| *first != b'H') {
                return Err(BadHead::FirstLine);
            }
            let line_max = limits.field_bytes_max;
            let Some(line) = self.cursor.line(input, limits, line_max, OverLimit::Head)? else {
                return Ok(Parsed::Partial);
            };
            head.fields.clear();
            status_line(line, head)?;
            self.in_fields = true;
        }
        self.cursor.fields(input, limits, &mut head.fields)
    }
}

/// Reads a head that is there as a whole, or not yet.
pub fn parse_response(
    input: &[u8],
    limits: &HeadLimits,
    head: &mut ResponseHead,
) -> Result<Parsed, BadHead> {
    ResponseParser::default().parse(input, limits, head)
}

/// `HTTP/1.x status reason`; the reason may be missing, with its space (RFC 9112 §4).
fn status_line(line: &[u8], head: &mut ResponseHead) -> Result<(), BadHead> {
    let (version, rest) = line.split_first_chunk::<9>().ok_or(BadHead::FirstLine)?;
    head.version = match version {
        b"HTTP/1.1 " => Version::Http11,
        b"HTTP/1.0 " => Version::Http10,
        [
            b'H',
            b'T',
            b'T',
            b'P',
            b'/',
            b'0'..=b'9',
            b'.',
            b'0'..=b'9',
            b' ',
        ] => {
            return Err(BadHead::Version);
        }
        _ => return Err(BadHead::FirstLine),
    };
    let (digits, reason) = rest.split_first_chunk::<3>().ok_or(BadHead::Status)?;
    head.status = status::parse(*digits).ok_or(BadHead::Status)?;
    match reason {
        [] => Ok(()),
        [b' ', reason @ ..] if octets::is_value(reason) => Ok(()),
        [b' ', ..] => Err(BadHead::FirstLine),
        _ => Err(BadHead::Status),
    }
}

#[cfg(test)]
mod tests;
