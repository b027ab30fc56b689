//! A field's value, written where it stays.

use std::net::IpAddr;

use crate::digits;

/// A value in the making: what is written is added at its end. What is not ours is judged when it is complete.
#[derive(Debug)]
pub struct Value<'a> {
    lines: &'a mut Vec<u8>,
    is_ours: bool,
}

impl<'a> Value<'a> {
    pub(super) fn at_end_of(lines: &'a mut Vec<u8>) -> Self {
        Self {
            lines,
            is_ours: true,
        }
    }

    /// Whether nothing in it needs to be judged.
    pub(super) fn is_ours(&self) -> bool {
        self.is_ours
    }

    /// As it is.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.is_ours &= bytes.is_empty();
        self.lines.extend_from_slice(bytes);
        self
    }

    /// As it is.
    pub fn text(&mut self, text: &str) -> &mut Self {
        self.bytes(text.as_bytes())
    }

    /// A character that every value may hold: punctuation between what comes before and behind it.
    pub fn mark(&mut self, mark: char) -> &mut Self {
        match mark.is_ascii_punctuation() {
            true => self.lines.push(mark as u8),
            false => _ = self.text(mark.encode_utf8(&mut [0; 4])),
        }
        self
    }

    /// Two digits in lower case.
    pub fn octet(&mut self, number: u8) -> &mut Self {
        let digit = |value: u8| value + if value < 10 { b'0' } else { b'a' - 10 };
        self.lines
            .extend_from_slice(&[digit(number >> 4), digit(number & 0xf)]);
        self
    }

    /// Sixteen digits in lower case.
    pub fn hexadecimal(&mut self, number: u64) -> &mut Self {
        digits::hexadecimal(number, self.lines);
        self
    }

    /// An IPv6 address without brackets.
    pub fn address(&mut self, address: IpAddr) -> &mut Self {
        digits::address(address, self.lines);
        self
    }
}
