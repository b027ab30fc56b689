//! Version 2: binary.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use super::crc32c::crc32c;
use super::{BadHeader, Origin, Parsed, Transport, one_family};

pub(super) const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// Signature, command, family, length.
const FIXED_BYTES: usize = 16;
/// All in all; elements may tell names and certificates, but this is enough for them. Version 1 needs less.
pub const HEADER_BYTES_MAX: usize = 4096;
/// Of two Unix socket paths.
const UNIX_BYTES: usize = 216;

const LOCAL: u8 = 0x20;
const PROXY: u8 = 0x21;

pub(super) fn parse(input: &[u8]) -> Result<Parsed, BadHeader> {
    let Some(fixed) = input.first_chunk::<FIXED_BYTES>() else {
        return Ok(Parsed::Partial);
    };
    let [.., command, family, high, low] = *fixed;
    if !matches!(command, LOCAL | PROXY) {
        return Err(BadHeader::Command);
    }
    let consumed = FIXED_BYTES + usize::from(u16::from_be_bytes([high, low]));
    if consumed > HEADER_BYTES_MAX {
        return Err(BadHeader::TooLong);
    }
    let Some(header) = input.get(..consumed) else {
        return Ok(Parsed::Partial);
    };
    let body = header.get(FIXED_BYTES..).unwrap_or_default();
    let (told, elements) = origin(family, body)?;
    check_elements(header, elements)?;
    let origin = match command {
        LOCAL => Origin::Proxy,
        _ => told,
    };
    Ok(Parsed::Header { consumed, origin })
}

/// What the addresses tell, and what is behind them.
fn origin(family: u8, body: &[u8]) -> Result<(Origin, &[u8]), BadHeader> {
    let transport = match family & 0x0f {
        0 => None,
        1 => Some(Transport::Stream),
        2 => Some(Transport::Datagram),
        _ => return Err(BadHeader::Family),
    };
    let (pair, elements) = match family >> 4 {
        0 => (None, body),
        1 => {
            let (addresses, rest) = body.split_first_chunk().ok_or(BadHeader::Addresses)?;
            (Some(inet(addresses)), rest)
        }
        2 => {
            let (addresses, rest) = body.split_first_chunk().ok_or(BadHeader::Addresses)?;
            (Some(inet6(addresses)), rest)
        }
        3 => {
            let rest = body.get(UNIX_BYTES..).ok_or(BadHeader::Addresses)?;
            (None, rest)
        }
        _ => return Err(BadHeader::Family),
    };
    let told = match (pair, transport) {
        (Some((source, destination)), Some(transport)) => Origin::Client {
            transport,
            source,
            destination,
        },
        _ => Origin::Untold,
    };
    Ok((told, elements))
}

fn inet(bytes: &[u8; 12]) -> (SocketAddr, SocketAddr) {
    let [a, b, c, d, e, f, g, h, from @ .., to_high, to_low] = *bytes;
    (
        SocketAddr::new(Ipv4Addr::new(a, b, c, d).into(), u16::from_be_bytes(from)),
        SocketAddr::new(
            Ipv4Addr::new(e, f, g, h).into(),
            u16::from_be_bytes([to_high, to_low]),
        ),
    )
}

fn inet6(bytes: &[u8; 36]) -> (SocketAddr, SocketAddr) {
    let (addresses, ports) = bytes.split_at(32);
    let (source, destination) = addresses.split_at(16);
    let (from, to) = ports.split_at(2);
    let ip = |octets: &[u8]| Ipv6Addr::from(octets.first_chunk().copied().unwrap_or_default());
    let port =
        |octets: &[u8]| u16::from_be_bytes(octets.first_chunk().copied().unwrap_or_default());
    (
        SocketAddr::new(ip(source).into(), port(from)),
        SocketAddr::new(ip(destination).into(), port(to)),
    )
}

/// Type, length in two bytes, value. Only the checksum means something here.
const CHECKSUM: u8 = 3;

fn check_elements(header: &[u8], mut elements: &[u8]) -> Result<(), BadHeader> {
    while let [kind, rest @ ..] = elements {
        let (length, rest) = rest.split_first_chunk().ok_or(BadHeader::Elements)?;
        let length = usize::from(u16::from_be_bytes(*length));
        let (value, rest) = rest.split_at_checked(length).ok_or(BadHeader::Elements)?;
        if *kind == CHECKSUM {
            let told = <[u8; 4]>::try_from(value).map_err(|_| BadHeader::Elements)?;
            // It is counted as if its own bytes were zero.
            let behind = rest.len();
            let before = header.len() - behind - told.len();
            let parts = [
                header.get(..before).unwrap_or_default(),
                &[0; 4],
                header.get(header.len() - behind..).unwrap_or_default(),
            ];
            if crc32c(parts) != u32::from_be_bytes(told) {
                return Err(BadHeader::Checksum);
            }
        }
        elements = rest;
    }
    Ok(())
}

/// Appends the header, without elements.
pub fn encode(origin: &Origin, out: &mut Vec<u8>) {
    out.extend_from_slice(SIGNATURE);
    let (transport, source, destination) = match *origin {
        Origin::Proxy => return out.extend_from_slice(&[LOCAL, 0, 0, 0]),
        Origin::Untold => return out.extend_from_slice(&[PROXY, 0, 0, 0]),
        Origin::Client {
            transport,
            source,
            destination,
        } => (transport, source, destination),
    };
    let low = match transport {
        Transport::Stream => 1,
        Transport::Datagram => 2,
    };
    match one_family(source, destination) {
        (SocketAddr::V4(source), SocketAddr::V4(destination)) => {
            out.extend_from_slice(&[PROXY, 0x10 | low, 0, 12]);
            out.extend_from_slice(&source.ip().octets());
            out.extend_from_slice(&destination.ip().octets());
        }
        (source, destination) => {
            out.extend_from_slice(&[PROXY, 0x20 | low, 0, 36]);
            for address in [source, destination] {
                let octets = match address {
                    SocketAddr::V4(v4) => v4.ip().to_ipv6_mapped().octets(),
                    SocketAddr::V6(v6) => v6.ip().octets(),
                };
                out.extend_from_slice(&octets);
            }
        }
    }
    out.extend_from_slice(&source.port().to_be_bytes());
    out.extend_from_slice(&destination.port().to_be_bytes());
}
