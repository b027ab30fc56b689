//! `Content-Length` (RFC 9110 §8.6), whatever version it came by.

use thiserror::Error;

use crate::fields::{Fields, Known};

/// Why the length is not clear.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum BadLength {
    /// Refused even if they agree.
    #[error("more than one Content-Length")]
    Several,
    /// Other than digits, or too many of them.
    #[error("Content-Length is no number")]
    NoNumber,
}

/// Nineteen digits never overflow 64 bits, and are enough for anybody.
const DIGITS_MAX: usize = 19;

impl Fields {
    /// The one `Content-Length` that there is: digits and nothing else.
    pub fn content_length(&self) -> Result<Option<u64>, BadLength> {
        let mut lengths = self.all(Known::ContentLength);
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(values: &[&str], expected: Result<Option<u64>, BadLength>) {
        let mut fields = Fields::default();
        for value in values {
            fields.append("Content-Length", value.as_bytes()).unwrap();
        }
        assert_eq!(fields.content_length(), expected, "{values:?}");
    }

    #[test]
    fn one_number_or_none() {
        check(&[], Ok(None));
        check(&["0"], Ok(Some(0)));
        check(
            &["9999999999999999999"],
            Ok(Some(9_999_999_999_999_999_999)),
        );
        check(&["10000000000000000000"], Err(BadLength::NoNumber));
        for other in ["", "+1", "-1", "1 1", "0x1", "1,1", "1e3"] {
            check(&[other], Err(BadLength::NoNumber));
        }
        check(&["1", "1"], Err(BadLength::Several));
    }
}
