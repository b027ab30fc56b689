//! The chunked coding of a request body, strictly (RFC 9112 §7.1). Pure.

/// Follows one body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Chunked {
    state: State,
    extension_bytes: u32,
    trailer_bytes: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Digits read, and the size so far.
    Size {
        digits: u8,
        size: u64,
    },
    Extension {
        size: u64,
        length: u32,
    },
    SizeEnd {
        size: u64,
    },
    Data {
        left: u64,
    },
    DataEnd {
        cr: bool,
    },
    /// Bytes of the present trailer line.
    Trailer {
        length: u32,
        cr: bool,
    },
}

/// Of one chunk, and of all.
const EXTENSION_BYTES_MAX: u32 = 256;
const EXTENSIONS_BYTES_MAX: u32 = 16 * 1024;
/// Trailer section, as a head.
const TRAILER_BYTES_MAX: u32 = 16 * 1024;
/// Sixteen digits are 64 bits; fifteen are enough for anybody and never overflow.
const SIZE_DIGITS_MAX: u8 = 15;

const START: State = State::Size { digits: 0, size: 0 };

impl Default for Chunked {
    fn default() -> Self {
        Self {
            state: START,
            extension_bytes: 0,
            trailer_bytes: 0,
        }
    }
}

impl Chunked {
    /// Takes bytes of the body; says how many, and whether it ended.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Result<(usize, bool), &'static str> {
        let mut at = 0;
        while at < bytes.len() {
            if let State::Data { left } = self.state {
                let taken = left.min((bytes.len() - at) as u64);
                at += taken as usize;
                self.state = match left - taken {
                    0 => State::DataEnd { cr: false },
                    left => State::Data { left },
                };
                continue;
            }
            let ended = self.byte(bytes[at])?;
            at += 1;
            if ended {
                return Ok((at, true));
            }
        }
        Ok((at, false))
    }

    fn byte(&mut self, byte: u8) -> Result<bool, &'static str> {
        self.state = match (self.state, byte) {
            (State::Size { digits: 1.., size }, b'\r') => State::SizeEnd { size },
            (State::Size { digits: 1.., size }, b';') => State::Extension { size, length: 0 },
            (State::Size { digits, size }, _) => {
                let digit = char::from(byte)
                    .to_digit(16)
                    .ok_or("a chunk's size is no number")?;
                if digits >= SIZE_DIGITS_MAX {
                    return Err("a chunk's size is too large");
                }
                State::Size {
                    digits: digits + 1,
                    size: size << 4 | u64::from(digit),
                }
            }
            (State::Extension { size, .. }, b'\r') => State::SizeEnd { size },
            (State::Extension { size, length }, b'\t' | b' '..=b'~' | 0x80..) => {
                self.extension_bytes += 1;
                if length >= EXTENSION_BYTES_MAX || self.extension_bytes > EXTENSIONS_BYTES_MAX {
                    return Err("chunk extensions are too long");
                }
                State::Extension {
                    size,
                    length: length + 1,
                }
            }
            (State::Extension { .. }, _) => return Err("a control character in a chunk extension"),
            (State::SizeEnd { size: 0 }, b'\n') => State::Trailer {
                length: 0,
                cr: false,
            },
            (State::SizeEnd { size }, b'\n') => State::Data { left: size },
            (State::DataEnd { cr: false }, b'\r') => State::DataEnd { cr: true },
            (State::DataEnd { cr: true }, b'\n') => START,
            (
                State::Trailer {
                    length: 0,
                    cr: true,
                },
                b'\n',
            ) => return Ok(true),
            (State::Trailer { cr: true, .. }, b'\n') => State::Trailer {
                length: 0,
                cr: false,
            },
            (State::Trailer { length, cr: false }, b'\r') => State::Trailer { length, cr: true },
            (State::Trailer { length, cr: false }, b'\t' | b' '..=b'~' | 0x80..) => {
                self.trailer_bytes += 1;
                if self.trailer_bytes > TRAILER_BYTES_MAX {
                    return Err("the trailers are too long");
                }
                State::Trailer {
                    length: length + 1,
                    cr: false,
                }
            }
            _ => return Err("a chunk does not end with CR LF"),
        };
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::Chunked;

    fn check(body: &str, expected: Result<(usize, bool), &str>) {
        assert_eq!(
            Chunked::default().feed(body.as_bytes()),
            expected,
            "{body:?}"
        );
    }

    #[test]
    fn only_exact_chunks_pass() {
        check("0\r\n\r\n", Ok((5, true)));
        check("2\r\nab\r\n0\r\n\r\nGET", Ok((12, true)));
        check("2;a=b\r\nab\r\n0\r\nT: 1\r\n\r\n", Ok((22, true)));
        check("2\r\na", Ok((4, false)));
        check("x\r\n", Err("a chunk's size is no number"));
        check("\r\n", Err("a chunk's size is no number"));
        check("+2\r\n", Err("a chunk's size is no number"));
        check("0x2\r\n", Err("a chunk's size is no number"));
        check("2 \r\n", Err("a chunk's size is no number"));
        check("2\nab", Err("a chunk's size is no number"));
        check("2;a\nb", Err("a control character in a chunk extension"));
        check("2\r\nabX", Err("a chunk does not end with CR LF"));
        check("2\r\nab\n", Err("a chunk does not end with CR LF"));
        check("0\r\nT: 1\n", Err("a chunk does not end with CR LF"));
        check("1111111111111111\r\n", Err("a chunk's size is too large"));
        let long = format!("1;{}\r\n", "x".repeat(300));
        check(&long, Err("chunk extensions are too long"));
    }
}
