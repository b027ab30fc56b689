//! The PROXY protocol, versions 1 and 2: what stands before a connection's first byte when a proxy without HTTP tells
//! whom it speaks for (HAProxy's `proxy-protocol.txt`). To be read from trusted peers only.

mod crc32c;
mod v1;
mod v2;

use std::net::{IpAddr, SocketAddr};

use thiserror::Error;

/// How far reading came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Parsed {
    /// More bytes are needed.
    Partial,
    /// The header is complete.
    Header {
        /// Its bytes; the connection's own begin behind them.
        consumed: usize,
        /// What it tells.
        origin: Origin,
    },
}

/// Whom a connection is for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Origin {
    /// A client of the proxy.
    Client {
        /// How it came to the proxy.
        transport: Transport,
        /// The client.
        source: SocketAddr,
        /// What the client connected to.
        destination: SocketAddr,
    },
    /// The proxy itself, as for a health check (`LOCAL`): the connection's own addresses count.
    Proxy,
    /// Not told (`UNKNOWN`), or not in addresses of the internet: the connection's own addresses count.
    Untold,
}

/// How the client came to the proxy.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Transport {
    /// TCP.
    Stream,
    /// UDP.
    Datagram,
}

/// Why a header is refused; the connection must be closed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Error)]
pub enum BadHeader {
    /// The bytes are those of another protocol.
    #[error("no PROXY header")]
    Absent,
    /// Version 1: more than 107 bytes. Version 2: more than 4 KiB.
    #[error("the PROXY header is too long")]
    TooLong,
    /// Neither version 1 nor 2, or neither `LOCAL` nor `PROXY`.
    #[error("the PROXY header's version or command is unknown")]
    Command,
    /// A protocol that does not exist.
    #[error("the PROXY header's address family is unknown")]
    Family,
    /// Not two addresses with ports, of the family that was told.
    #[error("the PROXY header's addresses are malformed")]
    Addresses,
    /// An element that is longer than the header.
    #[error("the PROXY header's elements are malformed")]
    Elements,
    /// The checksum that is there is not the header's.
    #[error("the PROXY header's checksum is wrong")]
    Checksum,
}

/// Reads a header at the beginning of `input`. Both versions are short: reading again from the start costs nothing.
pub fn parse(input: &[u8]) -> Result<Parsed, BadHeader> {
    if begins(input, v2::SIGNATURE) {
        v2::parse(input)
    } else if begins(input, v1::SIGNATURE) {
        v1::parse(input)
    } else {
        Err(BadHeader::Absent)
    }
}

/// Whether these are the first bytes of a connection that has a header, rather than of one that speaks HTTP or TLS.
pub fn has_header(input: &[u8]) -> bool {
    input.starts_with(v1::SIGNATURE) || input.starts_with(v2::SIGNATURE)
}

pub use v1::encode as encode_v1;
pub use v2::HEADER_BYTES_MAX;
pub use v2::encode as encode_v2;

/// Whether the input begins so, as far as it is there.
fn begins(input: &[u8], signature: &[u8]) -> bool {
    let length = input.len().min(signature.len());
    input.get(..length) == signature.get(..length)
}

/// Both addresses in one family: a pair of two families becomes one of IPv6.
fn one_family(source: SocketAddr, destination: SocketAddr) -> (SocketAddr, SocketAddr) {
    if source.is_ipv4() == destination.is_ipv4() {
        return (source, destination);
    }
    let mapped = |address: SocketAddr| match address.ip() {
        IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), address.port()),
        IpAddr::V6(_) => address,
    };
    (mapped(source), mapped(destination))
}

#[cfg(test)]
mod tests;
