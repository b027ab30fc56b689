//! Heads as bytes. What could be read in two ways is not written: framing comes from [`Framing`] alone, whatever the
//! fields say, and words with a byte too many are refused here even if nobody looked at them before.

use thiserror::Error;

use super::framing::Framing;
use super::hop_by_hop::HOP_BY_HOP;
use super::reason::reason;
use crate::authority::Authority;
use crate::digits::decimal;
use crate::fields::{Fields, Known, KnownSet};
use crate::method::Method;
use crate::octets;
use crate::version::Version;

/// The words of a request that are no fields.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RequestLine<'a> {
    /// The first word.
    pub method: &'a Method,
    /// Path and query; `*` with OPTIONS, the authority with CONNECT.
    pub target: &'a str,
    /// Becomes `Host`; empty when it is not known (RFC 9112 §3.2).
    pub authority: &'a str,
}

/// The words of a response that are no fields.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StatusLine {
    /// 100 to 999.
    pub status: u16,
    /// What the peer speaks: HTTP/1.0 or HTTP/1.1.
    pub version: Version,
}

/// What becomes of the connection after the message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Persist<'a> {
    /// Another message may follow.
    Keep,
    /// This one is the last.
    Close,
    /// It changes to this protocol, or is asked to.
    Upgrade(&'a str),
}

/// Why a head is not written. Always a mistake of the caller, who must not send anything instead.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum Unsayable {
    /// Another form than goes with the method, or a byte that ends it early.
    #[error("the target cannot be said")]
    Target,
    /// Not a host with an optional port.
    #[error("the authority cannot be said")]
    Authority,
    /// A status of other than three digits, or an interim one to HTTP/1.0.
    #[error("the status cannot be said")]
    Status,
    /// The message's kind has no such body.
    #[error("the framing does not go with the message")]
    Framing,
    /// The protocol's name has a byte that ends it early.
    #[error("the upgrade cannot be said")]
    Upgrade,
}

/// Written from arguments, never from the fields.
const DECIDED: KnownSet = HOP_BY_HOP.and(KnownSet::of(&[Known::ContentLength]));
const DECIDED_IN_REQUESTS: KnownSet = DECIDED.and(KnownSet::of(&[Known::Host]));
/// Room for the lines that are no fields, so that a head is written with at most one growth.
const LINES_BYTES: usize = 192;

/// Appends the head of a request, always as HTTP/1.1. After an error nothing was written.
pub fn encode_request(
    line: RequestLine<'_>,
    fields: &Fields,
    framing: Framing,
    persist: Persist<'_>,
    out: &mut Vec<u8>,
) -> Result<(), Unsayable> {
    judge_line(line)?;
    judge_upgrade(persist)?;
    if matches!(framing, Framing::Announced(_) | Framing::UntilClose) {
        return Err(Unsayable::Framing);
    }
    out.reserve(line.target.len() + line.authority.len() + fields.bytes() + LINES_BYTES);
    out.extend_from_slice(line.method.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(line.target.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\nHost: ");
    out.extend_from_slice(line.authority.as_bytes());
    out.extend_from_slice(b"\r\n");
    fields.write_lines(DECIDED_IN_REQUESTS, out);
    write_framing(framing, out);
    write_persist(persist, Version::Http11, out);
    out.extend_from_slice(b"\r\n");
    Ok(())
}

fn judge_line(line: RequestLine<'_>) -> Result<(), Unsayable> {
    let target = line.target.as_bytes();
    let fits = match (line.method, target) {
        (Method::Connect, _) => Authority::is_valid(target),
        (Method::Options, b"*") => true,
        _ => target.first() == Some(&b'/') && octets::is_target(target),
    };
    if !fits {
        return Err(Unsayable::Target);
    }
    let authority = line.authority.as_bytes();
    if !authority.is_empty() && !Authority::is_valid(authority) {
        return Err(Unsayable::Authority);
    }
    Ok(())
}

/// Appends the head of a response. After an error nothing was written.
///
/// [`Framing::None`] with a status that has a body is for the answers to HEAD and CONNECT only.
pub fn encode_response(
    line: StatusLine,
    fields: &Fields,
    framing: Framing,
    persist: Persist<'_>,
    out: &mut Vec<u8>,
) -> Result<(), Unsayable> {
    judge_upgrade(persist)?;
    let framing = judge_status(line, framing)?;
    // Only the end of the connection ends such a body.
    let persist = match framing {
        Framing::UntilClose => Persist::Close,
        _ => persist,
    };
    out.reserve(fields.bytes() + LINES_BYTES);
    out.extend_from_slice(match line.version {
        Version::Http10 => b"HTTP/1.0 ",
        Version::Http11 | Version::Http2 => b"HTTP/1.1 ",
    });
    decimal(u64::from(line.status), out);
    out.push(b' ');
    out.extend_from_slice(reason(line.status).as_bytes());
    out.extend_from_slice(b"\r\n");
    fields.write_lines(DECIDED, out);
    write_framing(framing, out);
    write_persist(persist, line.version, out);
    out.extend_from_slice(b"\r\n");
    Ok(())
}

/// The framing as it is written: some answers say nothing of it.
fn judge_status(line: StatusLine, framing: Framing) -> Result<Framing, Unsayable> {
    let old = line.version == Version::Http10;
    match (line.status, framing) {
        (0..=99 | 1000.., _) => Err(Unsayable::Status),
        (100..=199, _) if old => Err(Unsayable::Status),
        (100..=199 | 204, Framing::None | Framing::Length(0)) => Ok(Framing::None),
        (304, Framing::None | Framing::Announced(_)) => Ok(framing),
        (100..=199 | 204 | 304, _) => Err(Unsayable::Framing),
        (_, Framing::Chunked) if old => Err(Unsayable::Framing),
        _ => Ok(framing),
    }
}

fn judge_upgrade(persist: Persist<'_>) -> Result<(), Unsayable> {
    match persist {
        Persist::Upgrade("") => Err(Unsayable::Upgrade),
        Persist::Upgrade(protocol) if !octets::is_value(protocol.as_bytes()) => {
            Err(Unsayable::Upgrade)
        }
        _ => Ok(()),
    }
}

fn write_framing(framing: Framing, out: &mut Vec<u8>) {
    match framing {
        Framing::None | Framing::UntilClose => {}
        Framing::Length(length) | Framing::Announced(length) => {
            out.extend_from_slice(b"Content-Length: ");
            decimal(length, out);
            out.extend_from_slice(b"\r\n");
        }
        Framing::Chunked => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
    }
}

fn write_persist(persist: Persist<'_>, version: Version, out: &mut Vec<u8>) {
    match persist {
        Persist::Keep if version == Version::Http10 => {
            out.extend_from_slice(b"Connection: keep-alive\r\n");
        }
        Persist::Keep => {}
        Persist::Close => out.extend_from_slice(b"Connection: close\r\n"),
        Persist::Upgrade(protocol) => {
            out.extend_from_slice(b"Connection: upgrade\r\nUpgrade: ");
            out.extend_from_slice(protocol.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// Without the machinery of `fmt`.
#[cfg(test)]
mod tests;
