//! A WebSocket's opening handshake: what HTTP/1 says in it and HTTP/2 leaves out (RFC 6455 §4, RFC 8441 §5).

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use crate::clock::chance;

/// The protocol's name, as a token of `Upgrade` and in `:protocol`.
pub(crate) const NAME: &str = "websocket";
/// What the client makes up.
pub(crate) const KEY: &str = "sec-websocket-key";
/// What proves that the server has read the key, and took it for what it is.
pub(crate) const ACCEPT: &str = "sec-websocket-accept";

/// Follows the key in what is hashed (RFC 6455 §1.3).
const SUFFIX: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// A key for a client that has none: 16 random bytes. It proves that the answer is to this request, and is no secret.
pub(crate) fn key() -> String {
    BASE64_STANDARD.encode([chance(), chance()].map(u64::to_be_bytes).concat())
}

/// The one right answer to a key.
pub(crate) fn accept(key: &[u8]) -> String {
    let mut hash = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    hash.update(key);
    hash.update(SUFFIX);
    BASE64_STANDARD.encode(hash.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_to_the_key_of_the_rfc() {
        let answer = accept(b"dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(answer, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
