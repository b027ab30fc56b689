//! Connections from inside a pod's network namespace.

use std::io;
use std::net::{SocketAddr, TcpStream as StdStream};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpSocket, TcpStream};

use super::Target;
use crate::net::namespace;

/// Connects to the pod's own address from inside of it.
pub(super) async fn connect(target: &Target, port: u16) -> io::Result<TcpStream> {
    let socket = match &target.netns {
        // A socket belongs to the namespace that it is made in; only making it needs the visit.
        Some(path) => namespace::enter(path, make).map_err(io::Error::other)??,
        None => make()?,
    };
    TcpSocket::from_std_stream(StdStream::from(socket))
        .connect(SocketAddr::from((target.address, port)))
        .await
}

fn make() -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}
