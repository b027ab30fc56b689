//! Version 1: one line of text.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use super::{BadHeader, Origin, Parsed, Transport, one_family};

pub(super) const SIGNATURE: &[u8] = b"PROXY ";

/// With CR LF: `PROXY UNKNOWN` and two IPv6 addresses.
const LINE_BYTES_MAX: usize = 107;

pub(super) fn parse(input: &[u8]) -> Result<Parsed, BadHeader> {
    let seen = input.get(..LINE_BYTES_MAX).unwrap_or(input);
    let Some(feed) = memchr::memchr(b'\n', seen) else {
        return match seen.len() < LINE_BYTES_MAX {
            true => Ok(Parsed::Partial),
            false => Err(BadHeader::TooLong),
        };
    };
    let line = seen
        .get(..feed)
        .and_then(|line| line.strip_suffix(b"\r"))
        .and_then(|line| line.strip_prefix(SIGNATURE))
        .and_then(|line| std::str::from_utf8(line).ok())
        .ok_or(BadHeader::Addresses)?;
    Ok(Parsed::Header {
        consumed: feed + 1,
        origin: origin(line)?,
    })
}

fn origin(line: &str) -> Result<Origin, BadHeader> {
    let mut words = line.split(' ');
    let (source, destination) = match words.next() {
        Some("TCP4") => pair::<Ipv4Addr>(words)?,
        Some("TCP6") => pair::<Ipv6Addr>(words)?,
        // What follows is to be ignored.
        Some("UNKNOWN") => return Ok(Origin::Untold),
        _ => return Err(BadHeader::Family),
    };
    Ok(Origin::Client {
        transport: Transport::Stream,
        source,
        destination,
    })
}

/// `source destination port port`, with exactly one space each.
fn pair<'a, A>(
    mut words: impl Iterator<Item = &'a str>,
) -> Result<(SocketAddr, SocketAddr), BadHeader>
where
    A: FromStr + Into<IpAddr>,
{
    let (Some(source), Some(destination), Some(from), Some(to), None) = (
        words.next(),
        words.next(),
        words.next(),
        words.next(),
        words.next(),
    ) else {
        return Err(BadHeader::Addresses);
    };
    let address = |ip: &str, port: &str| {
        let ip: A = ip.parse().map_err(|_| BadHeader::Addresses)?;
        Ok(SocketAddr::new(ip.into(), self::port(port)?))
    };
    Ok((address(source, from)?, address(destination, to)?))
}

/// Digits without zeros in front; `str::parse` alone would take `+80`.
fn port(digits: &str) -> Result<u16, BadHeader> {
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
    if !plain || digits.len() > 1 && digits.starts_with('0') {
        return Err(BadHeader::Addresses);
    }
    digits.parse().map_err(|_| BadHeader::Addresses)
}

/// Appends the line. What it cannot tell, datagrams among it, is `UNKNOWN`.
pub fn encode(origin: &Origin, out: &mut Vec<u8>) {
    let Origin::Client {
        transport: Transport::Stream,
        source,
        destination,
    } = *origin
    else {
        out.extend_from_slice(b"PROXY UNKNOWN\r\n");
        return;
    };
    let (source, destination) = one_family(source, destination);
    let family = if source.is_ipv4() { '4' } else { '6' };
    let written = write!(
        out,
        "PROXY TCP{family} {} {} {} {}\r\n",
        source.ip(),
        destination.ip(),
        source.port(),
        destination.port()
    );
    debug_assert!(written.is_ok(), "writing to memory does not fail");
}
