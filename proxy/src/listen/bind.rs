//! Listening sockets, as many for one address as there are workers.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, SockRef, Socket, Type};

/// Connections that wait to be accepted; the kernel takes its own limit (net.core.somaxconn) where that is lower.
const BACKLOG: i32 = 4096;

/// What of an answer may wait in the kernel unsent: without it, a few hundred clients that read slowly make the kernel hold
/// gigabytes, and every connection of the machine stalls then.
const UNSENT_BYTES_MAX: u32 = 128 * 1024;

/// Opens `count` sockets for one address, among which the kernel spreads connections evenly (SO_REUSEPORT). An address
/// that anybody else listens at is refused: only these sockets share it.
pub fn bind(address: SocketAddr, count: usize) -> io::Result<Vec<TcpListener>> {
    // Alone at first. Had it the option already, it would join the sockets of another process of the same user.
    let first = bound(address, Sharing::No)?;
    let mut sockets = Vec::new();
    if count > 1 {
        first.set_reuse_port(true)?;
        let address = first.local_addr()?.as_socket().unwrap_or(address);
        for _ in 1..count {
            sockets.push(bound(address, Sharing::Yes)?);
        }
    }
    sockets.insert(0, first);
    let listening = sockets.into_iter().map(|socket| {
        tune(&socket)?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    });
    listening.collect()
}

/// What accepted sockets have, and take from the one that they came through, so that none costs a system call for it.
pub(crate) fn tune<'a>(listening: impl Into<SockRef<'a>>) -> io::Result<()> {
    let socket = listening.into();
    // Small messages must not wait for the peer's acknowledgement of earlier ones.
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_notsent_lowat(UNSENT_BYTES_MAX)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Sharing {
    Yes,
    No,
}

fn bound(address: SocketAddr, sharing: Sharing) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    // Connections of a process before this one may still be ending.
    socket.set_reuse_address(true)?;
    if sharing == Sharing::Yes {
        socket.set_reuse_port(true)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::net::TcpStream;

    use super::*;

    const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

    #[test]
    fn connections_are_spread() {
        let sockets = bind(ANY, 4).unwrap();
        let address = sockets[0].local_addr().unwrap();
        let clients: Vec<TcpStream> = (0..400)
            .map(|_| TcpStream::connect(address).unwrap())
            .collect();
        let mut taken = 0;
        for socket in &sockets {
            socket.set_nonblocking(true).unwrap();
            assert_eq!(socket.local_addr().unwrap(), address);
            let here = std::iter::from_fn(|| socket.accept().ok()).count();
            // By the hash of their ports: 100 each, give or take six standard deviations.
            assert!((48..=152).contains(&here), "{here}");
            taken += here;
        }
        assert_eq!(taken, clients.len());
    }

    #[test]
    fn accepted_sockets_have_what_theirs_has() {
        let sockets = bind(ANY, 1).unwrap();
        let address = sockets[0].local_addr().unwrap();
        let _client = TcpStream::connect(address).unwrap();
        let (accepted, _) = sockets[0].accept().unwrap();
        let accepted = SockRef::from(&accepted);
        assert!(accepted.tcp_nodelay().unwrap());
        assert_eq!(accepted.tcp_notsent_lowat().unwrap(), UNSENT_BYTES_MAX);
    }

    #[test]
    fn an_address_in_use_is_refused() {
        let refused = |address, count| bind(address, count).unwrap_err().kind();
        for first in [1, 2] {
            let sockets = bind(ANY, first).unwrap();
            let address = sockets[0].local_addr().unwrap();
            assert_eq!(refused(address, 1), ErrorKind::AddrInUse, "{first}");
            assert_eq!(refused(address, 2), ErrorKind::AddrInUse, "{first}");
            let other = TcpListener::bind(address).unwrap_err();
            assert_eq!(other.kind(), ErrorKind::AddrInUse);
        }
    }
}
