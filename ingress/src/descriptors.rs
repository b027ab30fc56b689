//! Descriptors that come over a unix socket with bytes (`SCM_RIGHTS`).

use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

/// Longest line: a sentence, or a word and a name for each descriptor.
pub const LINE_BYTES_MAX: usize = 32 * 1024;
/// Most descriptors of one message: the kernel sends no more (SCM_MAX_FD).
pub const DESCRIPTORS_MAX: usize = 253;

/// Most lines are short.
const READ_BYTES: usize = 1024;

/// Reads once; adds what came to `bytes` and `descriptors`. Zero bytes are the end.
pub fn read(
    socket: impl AsFd,
    bytes: &mut Vec<u8>,
    descriptors: &mut Vec<OwnedFd>,
) -> io::Result<usize> {
    let mut buffer = [0_u8; READ_BYTES];
    let mut slices = [IoSliceMut::new(&mut buffer)];
    let mut control = nix::cmsg_space!([RawFd; DESCRIPTORS_MAX]);
    let message = recvmsg::<()>(
        socket.as_fd().as_raw_fd(),
        &mut slices,
        Some(&mut control),
        MsgFlags::MSG_CMSG_CLOEXEC,
    )?;
    for part in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(received) = part {
            descriptors.extend(received.into_iter().map(owned));
        }
    }
    let count = message.bytes;
    bytes.extend_from_slice(&buffer[..count]);
    Ok(count)
}

#[expect(
    unsafe_code,
    reason = "the kernel made these descriptors for us in recvmsg just now: nobody else owns them"
)]
fn owned(descriptor: RawFd) -> OwnedFd {
    // SAFETY: see the reason above; each is wrapped exactly once.
    unsafe { OwnedFd::from_raw_fd(descriptor) }
}
