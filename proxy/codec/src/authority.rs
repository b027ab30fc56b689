//! The authority of a request: the host, and the port if there is one (RFC 3986 §3.2).

use std::net::Ipv6Addr;

use thiserror::Error;

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
        let text = std::str::from_utf8(bytes).map_err(|_| BadAuthority)?;
        let host_end = match text.strip_prefix('[') {
            Some(_) => text.find(']').ok_or(BadAuthority)? + 1,
            None => text.find(':').unwrap_or(text.len()),
        };
        let (host, rest) = text.split_at_checked(host_end).ok_or(BadAuthority)?;
        if !is_host(host) {
            return Err(BadAuthority);
        }
        let port = match rest.strip_prefix(':') {
            None if rest.is_empty() => None,
            None => return Err(BadAuthority),
            Some("") => None,
            Some(digits) => Some(port(digits).ok_or(BadAuthority)?),
        };
        Ok(Self {
            text,
            host_end,
            port,
        })
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

fn is_host(host: &str) -> bool {
    match host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
    {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => {
            (1..=HOST_BYTES_MAX).contains(&host.len())
                && host.bytes().all(|byte| {
                    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b'~')
                })
        }
    }
}

/// Digits only: `str::parse` would take `+80`.
fn port(digits: &str) -> Option<u16> {
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
