//! Heads of requests.

use super::limits::{BadHead, HeadLimits, OverLimit, Parsed};
use super::lines::{self, Cursor};
use crate::head::RequestHead;
use crate::method::Method;
use crate::octets;
use crate::version::Version;

/// Reads one head after the other, each in as many steps as it comes in.
#[derive(Clone, Default, Debug)]
pub struct RequestParser {
    cursor: Cursor,
    step: Step,
}

#[derive(Clone, Copy, Default, Debug)]
enum Step {
    #[default]
    Start,
    /// After an empty line.
    FirstLine,
    Fields,
}

/// A line's bytes around the target: the longest method, two spaces, the version.
const AROUND_TARGET: usize = Method::BYTES_MAX + 2 + 8;

impl RequestParser {
    /// Reads on. `input` is everything from the head's first byte on: what was there at the last call, and more. `head`
    /// is the same as at the last call; it says nothing before it is complete, and after an error it is empty.
    #[inline]
    pub fn parse(
        &mut self,
        input: &[u8],
        limits: &HeadLimits,
        head: &mut RequestHead,
    ) -> Result<Parsed, BadHead> {
        let parsed = self.advance(input, limits, head);
        lines::settle(self, parsed, || head.clear())
    }

    fn advance(
        &mut self,
        input: &[u8],
        limits: &HeadLimits,
        head: &mut RequestHead,
    ) -> Result<Parsed, BadHead> {
        if let Step::Start | Step::FirstLine = self.step {
            // Noise, such as a TLS handshake, is seen at its first byte.
            if let Some(first) = input.get(self.cursor.at)
                && !octets::is_token_byte(*first)
                && !matches!(first, b'\r' | b'\n')
            {
                return Err(BadHead::Method);
            }
            let line_max = limits.target_bytes_max.saturating_add(AROUND_TARGET);
            let Some(line) = self
                .cursor
                .line(input, limits, line_max, OverLimit::Target)?
            else {
                return Ok(Parsed::Partial);
            };
            match (self.step, line) {
                (Step::Start, []) => {
                    self.step = Step::FirstLine;
                    return self.advance(input, limits, head);
                }
                (_, []) => return Err(BadHead::EmptyLines),
                _ => {}
            }
            head.fields.clear();
            request_line(line, limits, head)?;
            self.step = Step::Fields;
        }
        self.cursor.fields(input, limits, &mut head.fields)
    }
}

/// Reads a head that is there as a whole, or not yet.
pub fn parse_request(
    input: &[u8],
    limits: &HeadLimits,
    head: &mut RequestHead,
) -> Result<Parsed, BadHead> {
    RequestParser::default().parse(input, limits, head)
}

/// `METHOD target HTTP/1.x`, with exactly one space each (RFC 9112 §3).
fn request_line(line: &[u8], limits: &HeadLimits, head: &mut RequestHead) -> Result<(), BadHead> {
    let (method, rest) = line
        .split_at_checked(octets::token_length(line))
        .ok_or(BadHead::FirstLine)?;
    let rest = rest.strip_prefix(b" ").ok_or(BadHead::Method)?;
    head.method = Method::parse(method).ok_or(BadHead::Method)?;
    let (target, version) = rest
        .split_last_chunk::<9>()
        .ok_or_else(|| no_version(line))?;
    head.version = match version {
        b" HTTP/1.1" => Version::Http11,
        b" HTTP/1.0" => Version::Http10,
        [
            b' ',
            b'H',
            b'T',
            b'T',
            b'P',
            b'/',
            b'0'..=b'9',
            b'.',
            b'0'..=b'9',
        ] => {
            return Err(BadHead::Version);
        }
        _ => return Err(no_version(line)),
    };
    if target.len() > limits.target_bytes_max {
        return Err(OverLimit::Target.into());
    }
    head.target.read(&head.method, target)?;
    Ok(())
}

/// What a line is that does not end with a version.
#[cold]
fn no_version(line: &[u8]) -> BadHead {
    let words = line.split(|byte| *byte == b' ');
    let last = line.rsplit(|byte| *byte == b' ').next().unwrap_or_default();
    let is_like_one = last
        .get(..5)
        .is_some_and(|start| start.eq_ignore_ascii_case(b"HTTP/"));
    match words.count() < 3 || last.is_empty() || is_like_one {
        true => BadHead::FirstLine,
        false => BadHead::OtherProtocol,
    }
}

#[cfg(test)]
mod tests;
