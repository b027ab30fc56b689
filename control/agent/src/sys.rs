//! The few things that safe wrappers do not offer; the only place of this crate with `unsafe`.
#![expect(
    unsafe_code,
    reason = "signal dispositions and registering a descriptor have no safe interface"
)]

use std::io;
use std::os::fd::OwnedFd;

use nix::sys::signal::{SigHandler, Signal, signal};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Registers `fd` with the runtime, to wait until it is readable.
pub(crate) fn readable(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd is open, always answers with the same descriptor, and is owned by the AsyncFd from here on.
    unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }.map_err(io::Error::from)
}

/// What a write to a closed pipe does to this process and to those it makes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum BrokenPipe {
    /// It ends the process: what programs expect to inherit.
    Ends,
    /// It is an error: how Rust programs live.
    IsAnError,
}

/// Sets what a broken pipe does.
pub(crate) fn on_broken_pipe(what: BrokenPipe) -> io::Result<()> {
    let handler = match what {
        BrokenPipe::Ends => SigHandler::SigDfl,
        BrokenPipe::IsAnError => SigHandler::SigIgn,
    };
    // SAFETY: neither handler runs code of ours.
    unsafe { signal(Signal::SIGPIPE, handler) }?;
    Ok(())
}
