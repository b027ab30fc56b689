//! Listening sockets of the host, handed over by descriptor.
//!
//! The edge runs in a network namespace of its own; what the host must see is opened outside and asked for by name over
//! a unix socket: `NAME\n`, answered by `ok\n` with the descriptor (`SCM_RIGHTS`) or by `error: <why>\n`.

use std::io::{self, Write as _};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::descriptors::{LINE_BYTES_MAX, read};

/// The answer is local and immediate; longer means that nobody serves the socket.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Asks the server at `path` for the listening socket called `name`.
pub(crate) fn ask(path: &Path, name: &str) -> Result<TcpListener, HostSocketError> {
    let failed = |source: io::Error| HostSocketError::Talk {
        path: path.to_owned(),
        source,
    };
    let mut stream = UnixStream::connect(path).map_err(failed)?;
    stream
        .set_read_timeout(Some(ANSWER_TIMEOUT))
        .map_err(failed)?;
    stream
        .set_write_timeout(Some(ANSWER_TIMEOUT))
        .map_err(failed)?;
    stream
        .write_all(format!("{name}\n").as_bytes())
        .map_err(failed)?;
    let (answer, descriptor) = receive(&stream).map_err(failed)?;
    match (answer.trim_end(), descriptor) {
        ("ok", Some(descriptor)) => listener(descriptor).map_err(failed),
        ("ok", None) => Err(HostSocketError::NoDescriptor {
            name: name.to_owned(),
        }),
        (answer, _) => Err(HostSocketError::Refused {
            name: name.to_owned(),
            answer: answer.trim_start_matches("error: ").to_owned(),
        }),
    }
}

/// Reads up to the end of the line; the descriptor travels with its first byte.
fn receive(stream: &UnixStream) -> io::Result<(String, Option<OwnedFd>)> {
    let (mut answer, mut descriptors) = (Vec::new(), Vec::new());
    while !answer.ends_with(b"\n") && answer.len() < LINE_BYTES_MAX {
        if read(stream, &mut answer, &mut descriptors)? == 0 {
            break;
        }
    }
    let answer = String::from_utf8_lossy(&answer).into_owned();
    Ok((answer, descriptors.pop()))
}

fn listener(descriptor: OwnedFd) -> io::Result<TcpListener> {
    let listener = TcpListener::from(descriptor);
    let accepts = nix::sys::socket::getsockopt(&listener, nix::sys::socket::sockopt::AcceptConn)?;
    if !accepts {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the descriptor is no listening socket",
        ));
    }
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Why a socket of the host cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum HostSocketError {
    /// The server of sockets.
    #[error("cannot talk to the host's socket server at {}", path.display())]
    Talk {
        /// Where it should be.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It said no.
    #[error("the host does not give the socket {name:?}: {answer}")]
    Refused {
        /// Which one.
        name: String,
        /// Its reason.
        answer: String,
    },
    /// It said yes and gave nothing.
    #[error("the host's answer for the socket {name:?} carries no descriptor")]
    NoDescriptor {
        /// Which one.
        name: String,
    },
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, IoSlice};
    use std::net::TcpStream;
    use std::os::fd::{AsRawFd as _, RawFd};
    use std::os::unix::net::UnixListener;

    use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

    use super::*;

    /// Serves one request for "http" with `answer`, handing over `descriptor`; returns what the client makes of it.
    fn check(answer: &'static str, descriptor: Option<RawFd>) -> Result<TcpListener, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sockets");
        let server = UnixListener::bind(&path).unwrap();
        let serving = std::thread::spawn(move || {
            let (stream, _) = server.accept().unwrap();
            let mut line = String::new();
            BufReader::new(&stream).read_line(&mut line).unwrap();
            assert_eq!(line, "http\n");
            let descriptors: Vec<RawFd> = descriptor.into_iter().collect();
            let control = [ControlMessage::ScmRights(&descriptors)];
            let control = if descriptors.is_empty() {
                &[][..]
            } else {
                &control[..]
            };
            let bytes = [IoSlice::new(answer.as_bytes())];
            sendmsg::<()>(stream.as_raw_fd(), &bytes, control, MsgFlags::empty(), None).unwrap();
        });
        let got = ask(&path, "http").map_err(|error| match error {
            HostSocketError::Talk { source, .. } => format!("talk: {source}"),
            other => other.to_string(),
        });
        serving.join().unwrap();
        got
    }

    #[test]
    fn a_socket_handed_over_accepts() {
        let opened = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = opened.local_addr().unwrap();
        let given = check("ok\n", Some(opened.as_raw_fd())).expect("a listener");
        drop(opened);
        assert_eq!(given.local_addr().unwrap(), address);
        TcpStream::connect(address).expect("the given one listens");
    }

    #[test]
    fn refusals_say_why() {
        let refused = check("error: no socket of that name\n", None).unwrap_err();
        assert_eq!(
            refused,
            "the host does not give the socket \"http\": no socket of that name"
        );
        let nothing = check("ok\n", None).unwrap_err();
        assert!(nothing.contains("carries no descriptor"), "{nothing}");
        let file = std::fs::File::open("/dev/null").unwrap();
        let not_a_socket = check("ok\n", Some(file.as_raw_fd())).unwrap_err();
        assert!(not_a_socket.starts_with("talk: "), "{not_a_socket}");
        let silent = check("", None).unwrap_err();
        assert!(silent.ends_with("\"http\": "), "{silent}");
    }
}
