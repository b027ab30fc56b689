//! What a connection speaks, from its first bytes.

use std::time::Duration;

use bytes::BytesMut;
pub(crate) use meshgate_codec::Spoken;
use tokio::io::{AsyncRead, AsyncReadExt};

/// What the first look at a connection found. What was read must be put back, whatever it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Detected {
    /// The client spoke.
    Spoke(Spoken),
    /// Nothing decisive in time: perhaps the server speaks first.
    Silent,
    /// The client said that it will say nothing.
    Ended,
    /// The connection broke before a byte.
    Gone,
}

/// As much as the first look reads: most heads fit, so that most connections need one read for both purposes.
pub(crate) fn room() -> BytesMut {
    BytesMut::with_capacity(1024)
}

/// Reads, after what was `read` already, until the protocol is clear or `patience` ends. May be dropped at any time: what
/// has come is in `read`.
pub(crate) async fn detect(
    io: &mut (impl AsyncRead + Unpin),
    read: &mut BytesMut,
    patience: Duration,
) -> Detected {
    let reading = async {
        loop {
            if let Some(spoken) = Spoken::first(read) {
                return Detected::Spoke(spoken);
            }
            match io.read_buf(read).await {
                Ok(1..) => {}
                Ok(0) if read.is_empty() => return Detected::Ended,
                Err(_) if read.is_empty() => return Detected::Gone,
                // Half a protocol and then nothing: whoever is behind may judge.
                Ok(0) | Err(_) => return Detected::Spoke(Spoken::Tcp),
            }
        }
    };
    tokio::time::timeout(patience, reading)
        .await
        .unwrap_or(Detected::Silent)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    #[tokio::test(start_paused = true)]
    async fn a_silent_client_is_not_waited_for() {
        let (mut near, _far) = tokio::io::duplex(64);
        let mut read = room();
        let detected = detect(&mut near, &mut read, Duration::from_millis(100)).await;
        assert_eq!((detected, read.is_empty()), (Detected::Silent, true));
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_lost_when_somebody_else_speaks_first() {
        let (mut near, mut far) = tokio::io::duplex(64);
        let mut read = room();
        far.write_all(b"EH").await.unwrap();
        let spoke = tokio::time::sleep(Duration::from_secs(1));
        tokio::select! {
            detected = detect(&mut near, &mut read, Duration::MAX) => panic!("{detected:?}"),
            () = spoke => {}
        }
        far.write_all(b"LO x").await.unwrap();
        let detected = detect(&mut near, &mut read, Duration::MAX).await;
        assert_eq!(detected, Detected::Spoke(Spoken::Http1));
        assert_eq!(&read[..], b"EHLO x");
    }

    #[tokio::test]
    async fn half_a_protocol_and_none_at_all() {
        for (said, expected) in [("", Detected::Ended), ("GE", Detected::Spoke(Spoken::Tcp))] {
            let (mut near, mut far) = tokio::io::duplex(64);
            far.write_all(said.as_bytes()).await.unwrap();
            drop(far);
            let mut read = room();
            let detected = detect(&mut near, &mut read, Duration::MAX).await;
            assert_eq!((detected, &read[..]), (expected, said.as_bytes()));
        }
    }
}
