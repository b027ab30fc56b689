//! What a connection speaks, from its first bytes.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
pub(crate) use meshgate_codec::Spoken;
use tokio::io::{AsyncRead, AsyncReadExt};

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
            if let Some(spoken) = Spoken::first(&read) {
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

    #[tokio::test(start_paused = true)]
    async fn a_silent_client_is_not_waited_for() {
        let (mut near, _far) = tokio::io::duplex(64);
        let detected = detect(&mut near, Duration::from_millis(100)).await;
        assert!(matches!(detected, Detected::Silent(bytes) if bytes.is_empty()));
    }
}
