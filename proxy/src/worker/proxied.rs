//! Connections that a proxy without HTTP passes on: the PROXY header before their first byte tells whose they are.

use std::io;
use std::net::SocketAddr;

use meshgate_codec::proxy_protocol::{
    BadHeader, HEADER_BYTES_MAX, Origin, Parsed, Transport, parse,
};
use thiserror::Error;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// Whom a connection is for, as far as a header tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Told {
    Client {
        source: SocketAddr,
        /// What it connected to.
        reached: SocketAddr,
    },
    /// The connection's own addresses count: it is the proxy's own, or the header does not say.
    Nobody,
}

/// Why nobody knows whom a connection is for.
#[derive(Debug, Error)]
pub(super) enum Untold {
    #[error(transparent)]
    Bad(#[from] BadHeader),
    #[error("the connection ended in the PROXY header")]
    Cut,
    #[error("the connection failed: {0}")]
    Connection(#[from] io::Error),
}

/// Takes the header off a connection, and not a byte more: what follows is another reader's.
pub(super) async fn take_header(stream: &mut TcpStream) -> Result<Told, Untold> {
    let mut header = vec![0; HEADER_BYTES_MAX];
    let mut taken = 0;
    loop {
        let seen = taken + stream.peek(&mut header[taken..]).await?;
        if seen == taken {
            return Err(Untold::Cut);
        }
        let (end, told) = match parse(&header[..seen])? {
            Parsed::Header { consumed, origin } => (consumed, Some(told(origin))),
            // All of it belongs to the header; taken, the next look waits for more.
            Parsed::Partial => (seen, None),
        };
        stream.read_exact(&mut header[taken..end]).await?;
        taken = end;
        if let Some(told) = told {
            return Ok(told);
        }
    }
}

/// Over TCP nobody speaks for a client of another transport.
fn told(origin: Origin) -> Told {
    match origin {
        Origin::Client {
            transport: Transport::Stream,
            source,
            destination: reached,
        } => Told::Client { source, reached },
        Origin::Client { .. } | Origin::Proxy | Origin::Untold => Told::Nobody,
    }
}
