//! What a connection speaks, from its first bytes.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

/// A protocol as far as routing cares.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Spoken {
    Http1,
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

/// What these first bytes are; `None` when more are needed.
fn classify(bytes: &[u8]) -> Option<Spoken> {
    if bytes.is_empty() {
        return None;
    }
    let length = bytes.len().min(PREFACE.len());
    if bytes[..length] == PREFACE[..length] {
        // "PRI" alone is the beginning of nothing else that is real.
        return (length == PREFACE.len()).then_some(Spoken::Http2);
    }
    if bytes[0] == 0x16 {
        return match bytes.get(1) {
            None => None,
            Some(0x03) => Some(Spoken::Tls),
            Some(_) => Some(Spoken::Tcp),
        };
    }
    let method = bytes
        .iter()
        .take_while(|byte| byte.is_ascii_uppercase() || **byte == b'-')
        .count();
    match bytes.get(method) {
        Some(b' ') if method >= 3 => Some(Spoken::Http1),
        None if method <= METHOD_BYTES_MAX => None,
        _ => Some(Spoken::Tcp),
    }
}

/// What the first look at a connection found.
#[derive(Debug)]
pub(crate) enum Detected {
    /// The client spoke; these bytes must be put back.
    Spoke(Spoken, Bytes),
    /// Nothing decisive in time: perhaps the server speaks first. These bytes must be put back.
    Silent(Bytes),
    /// Closed before a byte.
    Gone,
}

/// Reads until the protocol is clear or `patience` ends.
pub(crate) async fn detect(io: &mut (impl AsyncRead + Unpin), patience: Duration) -> Detected {
    // Most heads fit, so that most connections need one read for both purposes.
    detect_after(io, BytesMut::with_capacity(1024), patience).await
}

/// The same, with bytes that were read already.
pub(crate) async fn detect_after(
    io: &mut (impl AsyncRead + Unpin),
    mut read: BytesMut,
    patience: Duration,
) -> Detected {
    let reading = async {
        loop {
            if let Some(spoken) = classify(&read) {
                return Ok(spoken);
            }
            match io.read_buf(&mut read).await {
                Ok(1..) => {}
                // Half a protocol and then nothing: whoever is behind may judge.
                Ok(0) | Err(_) => return Err(()),
            }
        }
    };
    match tokio::time::timeout(patience, reading).await {
        Ok(Ok(spoken)) => Detected::Spoke(spoken, read.freeze()),
        Ok(Err(())) if read.is_empty() => Detected::Gone,
        Ok(Err(())) => Detected::Spoke(Spoken::Tcp, read.freeze()),
        Err(_) => Detected::Silent(read.freeze()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bytes: &[u8], expected: Option<Spoken>) {
        assert_eq!(classify(bytes), expected, "{bytes:?}");
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
        check(&[b'A'; 30], Some(Spoken::Tcp));
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_client_is_not_waited_for() {
        let (mut near, _far) = tokio::io::duplex(64);
        let detected = detect(&mut near, Duration::from_millis(100)).await;
        assert!(matches!(detected, Detected::Silent(bytes) if bytes.is_empty()));
    }
}
