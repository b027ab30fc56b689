//! `Content-Length` (RFC 9110 §8.6), whatever version it came by.

use crate::fields::{Fields, Known};

/// Why the length is not clear.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum BadLength {
    /// Refused even if they agree.
    Several,
    /// Other than digits, or too many of them.
    NoNumber,
}

/// Nineteen digits never overflow 64 bits, and are enough for anybody.
const DIGITS_MAX: usize = 19;

impl Fields {
    /// What `Content-Length` says, if it says one number.
    pub fn content_length(&self) -> Option<u64> {
        content_length(self).ok().flatten()
    }
}

/// The one that there is: digits and nothing else.
pub(crate) fn content_length(fields: &Fields) -> Result<Option<u64>, BadLength> {
    let mut lengths = fields.all(Known::ContentLength);
    let Some(digits) = lengths.next() else {
        return Ok(None);
    };
    if lengths.next().is_some() {
        return Err(BadLength::Several);
    }
    if digits.is_empty() || digits.len() > DIGITS_MAX {
        return Err(BadLength::NoNumber);
    }
    digits
        .iter()
        .try_fold(0_u64, |sum, digit| match digit {
            b'0'..=b'9' => Ok(sum * 10 + u64::from(digit - b'0')),
            _ => Err(BadLength::NoNumber),
        })
        .map(Some)
}
