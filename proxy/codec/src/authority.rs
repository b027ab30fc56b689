//! The authority of a request: the host, and the port if there is one (RFC 3986 §3.2).

use std::net::Ipv6Addr;

use thiserror::Error;

use crate::octets;

/// `name`, `name:port`, `[v6]` or `[v6]:port`. No user, no percent-encoding: nobody sends them for good.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Authority<'a> {
    text: &'a str,
    host_end: usize,
    port: Option<u16>,
}

/// The text is no authority.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("not a host with an optional port")]
pub struct BadAuthority;

/// Longest DNS name, with its last dot.
const HOST_BYTES_MAX: usize = 255;

impl<'a> Authority<'a> {
    /// Judges the bytes of a `Host` or of a target.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, BadAuthority> {
        let (host_end, port) = judge(bytes)?;
        let text = std::str::from_utf8(bytes).map_err(|_| BadAuthority)?;
        Ok(Self {
            text,
            host_end,
            port,
        })
    }

    /// Whether [`parse`](Self::parse) takes these bytes.
    pub fn is_valid(bytes: &[u8]) -> bool {
        judge(bytes).is_ok()
    }

    /// As it came.
    pub fn as_str(&self) -> &'a str {
        self.text
    }

    /// Without the port; an IPv6 address in its brackets.
    pub fn host(&self) -> &'a str {
        self.text.get(..self.host_end).unwrap_or_default()
    }

    /// `None` when it is not said.
    pub fn port(&self) -> Option<u16> {
        self.port
    }
}

/// What a name may hold.
static HOST: [bool; 256] = host_table();

const fn host_table() -> [bool; 256] {
    let mut table = [false; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        table[byte as usize] =
            byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b'~');
        byte += 1;
    }
    table
}

/// Where the host ends, and the port.
fn judge(bytes: &[u8]) -> Result<(usize, Option<u16>), BadAuthority> {
    let host_end = match bytes.first() {
        Some(b'[') => {
            1 + bytes
                .iter()
                .position(|byte| *byte == b']')
                .ok_or(BadAuthority)?
        }
        _ => octets::colon(bytes).unwrap_or(bytes.len()),
    };
    let (host, rest) = bytes.split_at_checked(host_end).ok_or(BadAuthority)?;
    if !is_host(host) {
        return Err(BadAuthority);
    }
    let port = match rest {
        [] | [b':'] => None,
        [b':', digits @ ..] => Some(port(digits).ok_or(BadAuthority)?),
        _ => return Err(BadAuthority),
    };
    Ok((host_end, port))
}

fn is_host(host: &[u8]) -> bool {
    match host {
        [b'[', address @ .., b']'] => {
            std::str::from_utf8(address).is_ok_and(|address| address.parse::<Ipv6Addr>().is_ok())
        }
        _ => {
            (1..=HOST_BYTES_MAX).contains(&host.len())
                && host.iter().all(|byte| HOST[usize::from(*byte)])
        }
    }
}

/// Digits only: `str::parse` would take `+80`.
fn port(digits: &[u8]) -> Option<u16> {
    let digits = std::str::from_utf8(digits).ok()?;
    digits
        .bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| digits.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::Authority;

    fn check(text: &str, expected: Option<(&str, Option<u16>)>) {
        let found = Authority::parse(text.as_bytes()).ok();
        assert_eq!(
            found.map(|found| (found.host(), found.port())),
            expected,
            "{text:?}"
        );
    }

    #[test]
    fn hosts_and_ports() {
        check("a.test", Some(("a.test", None)));
        check("A_b-c.test.:80", Some(("A_b-c.test.", Some(80))));
        check("a:", Some(("a", None)));
        check("10.0.0.1:65535", Some(("10.0.0.1", Some(65535))));
        check("[::1]", Some(("[::1]", None)));
        check("[::1]:8080", Some(("[::1]", Some(8080))));
        for bad in [
            "", ":80", "a:b", "a:+80", "a:65536", "a:80:80", "u@a", "a/b", "a b", "a,b", "a%41",
            "[::1", "::1", "[a]", "[::1]x", "[]", "a\0", "\u{e4}", "a?b", "a#b", "a\\b", "[::1]]",
        ] {
            check(bad, None);
        }
        check(&"a".repeat(256), None);
    }
}
