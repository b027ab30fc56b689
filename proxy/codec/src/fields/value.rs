//! A field's value, written where it stays.

use std::net::IpAddr;

use crate::digits;

/// A value in the making: what is written is added at its end. Judged when it is complete.
#[derive(Debug)]
pub struct Value<'a>(pub(super) &'a mut Vec<u8>);

impl Value<'_> {
    /// As it is.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// As it is.
    pub fn text(&mut self, text: &str) -> &mut Self {
        self.bytes(text.as_bytes())
    }

    /// Sixteen digits in lower case.
    pub fn hexadecimal(&mut self, number: u64) -> &mut Self {
        digits::hexadecimal(number, self.0);
        self
    }

    /// An IPv6 address without brackets.
    pub fn address(&mut self, address: IpAddr) -> &mut Self {
        digits::address(address, self.0);
        self
    }
}
