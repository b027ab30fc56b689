//! Lines of text with descriptors, over a unix socket.

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

use meshgate_ingress::descriptors::{LINE_BYTES_MAX, read};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use tokio::io::Interest;
use tokio::net::UnixStream;

/// A line that came.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// Without its end; empty when the other end has closed.
    pub(super) text: String,
    pub(super) descriptors: Vec<OwnedFd>,
}

/// Sends a line, short enough for one message.
pub(super) async fn send(
    stream: &UnixStream,
    text: &str,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let line = format!("{text}\n");
    let raw: Vec<RawFd> = descriptors.iter().map(|one| one.as_raw_fd()).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let rights = if raw.is_empty() { &[][..] } else { &rights[..] };
    let sent = stream
        .async_io(Interest::WRITABLE, || {
            let bytes = [IoSlice::new(line.as_bytes())];
            let sent = sendmsg::<()>(
                stream.as_raw_fd(),
                &bytes,
                rights,
                MsgFlags::MSG_NOSIGNAL,
                None,
            );
            sent.map_err(io::Error::from)
        })
        .await?;
    match sent == line.len() {
        true => Ok(()),
        false => Err(io::Error::from(io::ErrorKind::WriteZero)),
    }
}

/// The next line. Nothing is sent before its answer is read, so a line is never followed by another in one read.
pub(super) async fn receive(stream: &UnixStream, patience: Duration) -> io::Result<Line> {
    let reading = async {
        let (mut bytes, mut descriptors) = (Vec::new(), Vec::new());
        while !bytes.ends_with(b"\n") && bytes.len() < LINE_BYTES_MAX {
            let count = stream
                .async_io(Interest::READABLE, || {
                    read(stream, &mut bytes, &mut descriptors)
                })
                .await?;
            if count == 0 {
                break;
            }
        }
        Ok(Line {
            text: String::from_utf8_lossy(&bytes).trim_end().to_owned(),
            descriptors,
        })
    };
    match tokio::time::timeout(patience, reading).await {
        Ok(line) => line,
        Err(_) => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("no word within {} s", patience.as_secs()),
        )),
    }
}
