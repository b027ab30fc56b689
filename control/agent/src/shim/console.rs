//! The container's standard streams.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::pipe2;

use super::files::ShimConfig;
use super::log::{Log, Stream};

/// Bytes read from a pipe at once.
const READ_BYTES: usize = 16 << 10;

/// The shim's ends and the log behind them.
pub(super) struct Console {
    stdout: Option<File>,
    stderr: Option<File>,
    log: Log,
    /// Held so that the container's standard input does not end.
    _stdin: Option<OwnedFd>,
}

/// The container's ends.
pub(super) struct ContainerEnds {
    pub(super) stdin: Option<OwnedFd>,
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
}

impl Console {
    pub(super) fn open(config: &ShimConfig) -> io::Result<(Console, ContainerEnds)> {
        let (stdout_read, stdout) = pipe2(OFlag::O_CLOEXEC)?;
        let (stderr_read, stderr) = pipe2(OFlag::O_CLOEXEC)?;
        let (stdin, stdin_write) = match config.stdin {
            true => {
                let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
                (Some(read), Some(write))
            }
            false => (None, None),
        };
        for end in [&stdout_read, &stderr_read] {
            fcntl(end, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        }
        let console = Console {
            stdout: Some(File::from(stdout_read)),
            stderr: Some(File::from(stderr_read)),
            log: Log::open(&config.log)?,
            _stdin: stdin_write,
        };
        let ends = ContainerEnds {
            stdin,
            stdout,
            stderr,
        };
        Ok((console, ends))
    }

    /// What to wait for: the streams that are still open.
    pub(super) fn open_streams(&self) -> impl Iterator<Item = (Stream, BorrowedFd<'_>)> {
        let stdout = self
            .stdout
            .iter()
            .map(|file| (Stream::Stdout, file.as_fd()));
        let stderr = self
            .stderr
            .iter()
            .map(|file| (Stream::Stderr, file.as_fd()));
        stdout.chain(stderr)
    }

    /// Writes to the log what is there. A stream that has ended, or fails, is closed.
    pub(super) fn take(&mut self, stream: Stream) {
        let slot = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        let Some(file) = slot else { return };
        let mut buffer = [0; READ_BYTES];
        loop {
            match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => {
                    self.log.write(stream, &buffer[..read]);
                    // The pipe is empty; asking again would only be told so.
                    if read < buffer.len() {
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => break,
            }
        }
        self.log.end(stream);
        *slot = None;
    }

    /// Takes what is left after the container has ended. Does not wait for others that may hold the pipes.
    pub(super) fn finish(mut self) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            self.take(stream);
            self.log.end(stream);
        }
    }
}
