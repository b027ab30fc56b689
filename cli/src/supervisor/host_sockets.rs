//! Hands listening sockets of the host to pods that ask by name: a client sends `NAME\n`, and gets the socket with `ok\n`.
//!
//! This is how the edge, a pod in a network of its own, is reached from the host, and why its restart refuses nobody:
//! the socket stays open here.

use std::io::{BufRead, BufReader, IoSlice};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use anyhow::Context;
use meshgate_api::names;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

/// A client that does not ask in this time is dropped: one thread serves all.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest name of a socket, with its line end.
const NAME_BYTES_MAX: usize = 64;

/// Serves on a thread of its own for the life of the process.
pub(super) fn serve(sockets: Vec<(&'static str, OwnedFd)>) -> anyhow::Result<()> {
    let path = names::HOST_SOCKETS;
    let listener = UnixListener::bind(path).with_context(|| format!("cannot listen on {path}"))?;
    // Pods get at it only by a hostPath volume, and may run as any user.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))
        .with_context(|| format!("cannot open {path} to pods"))?;
    std::thread::Builder::new()
        .name("host-sockets".to_owned())
        .spawn(move || {
            for client in listener.incoming() {
                match client.and_then(|client| answer(&client, &sockets)) {
                    Ok(name) => tracing::info!(name, "handed a socket of the host over"),
                    Err(error) => {
                        tracing::warn!(%error, "a request for a socket of the host failed")
                    }
                }
            }
        })
        .context("cannot start the thread that hands sockets over")?;
    Ok(())
}

fn answer(client: &UnixStream, sockets: &[(&'static str, OwnedFd)]) -> std::io::Result<String> {
    client.set_read_timeout(Some(ASK_TIMEOUT))?;
    client.set_write_timeout(Some(ASK_TIMEOUT))?;
    let mut line = String::new();
    std::io::Read::take(BufReader::new(client), NAME_BYTES_MAX as u64).read_line(&mut line)?;
    let name = line.trim_end();
    match sockets.iter().find(|(known, _)| *known == name) {
        Some((_, socket)) => send(client, b"ok\n", &[socket.as_raw_fd()])?,
        None => send(
            client,
            format!("error: the host has no socket {name:?}\n").as_bytes(),
            &[],
        )?,
    }
    Ok(name.to_owned())
}

fn send(client: &UnixStream, text: &[u8], descriptors: &[RawFd]) -> std::io::Result<()> {
    let rights = [ControlMessage::ScmRights(descriptors)];
    let rights = if descriptors.is_empty() {
        &[][..]
    } else {
        &rights[..]
    };
    sendmsg::<()>(
        client.as_raw_fd(),
        &[IoSlice::new(text)],
        rights,
        MsgFlags::MSG_NOSIGNAL,
        None,
    )?;
    Ok(())
}
