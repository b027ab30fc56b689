//! The status of a response (RFC 9110 §15), as text.

/// Three digits, the first not zero.
pub(crate) fn parse(digits: [u8; 3]) -> Option<u16> {
    let [
        hundreds @ b'1'..=b'9',
        tens @ b'0'..=b'9',
        ones @ b'0'..=b'9',
    ] = digits
    else {
        return None;
    };
    let digit = |byte: u8| u16::from(byte - b'0');
    Some(digit(hundreds) * 100 + digit(tens) * 10 + digit(ones))
}

/// Three digits.
pub(crate) fn digits(status: u16) -> [u8; 3] {
    [status / 100, status / 10, status].map(|digit| b'0' + (digit % 10) as u8)
}
