//! What a connection speaks, from its first bytes.

/// A protocol as far as routing cares.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Spoken {
    /// HTTP/1, or what begins as it does.
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
    /// A TLS ClientHello: passed on as it is.
    Tls,
    /// Anything else.
    Tcp,
}

/// The connection preface of HTTP/2 (RFC 9113 §3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Longest method that counts as HTTP/1 (`UNSUBSCRIBE` and some room).
const METHOD_BYTES_MAX: usize = 20;
/// A TLS record of a handshake, and the only major version there is (RFC 8446 §5.1).
const HANDSHAKE: u8 = 0x16;
const TLS_MAJOR: u8 = 0x03;

impl Spoken {
    /// As many bytes always tell.
    pub const BYTES_MAX: usize = PREFACE.len();

    /// What these first bytes are; `None` when more are needed.
    pub fn first(bytes: &[u8]) -> Option<Self> {
        let (first, rest) = bytes.split_first()?;
        let length = bytes.len().min(PREFACE.len());
        if bytes.get(..length) == PREFACE.get(..length) {
            // "PRI" alone is the beginning of nothing else that is real.
            return (length == PREFACE.len()).then_some(Self::Http2);
        }
        if *first == HANDSHAKE {
            return Some(match rest.first()? {
                &TLS_MAJOR => Self::Tls,
                _ => Self::Tcp,
            });
        }
        let method = bytes
            .iter()
            .take_while(|byte| byte.is_ascii_uppercase() || **byte == b'-')
            .count();
        match bytes.get(method) {
            Some(b' ') if (3..=METHOD_BYTES_MAX).contains(&method) => Some(Self::Http1),
            None if method <= METHOD_BYTES_MAX => None,
            _ => Some(Self::Tcp),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Spoken;

    fn check(bytes: &[u8], expected: Option<Spoken>) {
        assert_eq!(Spoken::first(bytes), expected, "{bytes:?}");
    }

    #[test]
    fn first_bytes_tell() {
        check(b"", None);
        check(b"GE", None);
        check(b"GET ", Some(Spoken::Http1));
        check(b"M-SEARCH * HTTP/1.1", Some(Spoken::Http1));
        check(b"PRI * HT", None);
        check(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0", Some(Spoken::Http2));
        check(b"PRI * HTTP/1.1", Some(Spoken::Http1));
        check(b"\x16", None);
        check(b"\x16\x03\x01", Some(Spoken::Tls));
        check(b"\x16\x05", Some(Spoken::Tcp));
        check(b"\0\0\0\x08", Some(Spoken::Tcp));
        check(b"*1\r\n$4\r\nPING", Some(Spoken::Tcp));
        check(b"EHLO x", Some(Spoken::Http1));
        check(b"get / http", Some(Spoken::Tcp));
        check(&[b'A'; 20], None);
        // However much of it is there.
        check(&[b'A'; 21], Some(Spoken::Tcp));
        check(b"AAAAAAAAAAAAAAAAAAAAA /", Some(Spoken::Tcp));
    }
}
