//! Heads out of header blocks.

use super::fields::{HEAD, Reading, TRAILERS};
use super::{BadHead, Malformed, RequestHead, Scheme};
use crate::authority::Authority;
use crate::fields::{Fields, Known};
use crate::head::ResponseHead;
use crate::http1::{HeadLimits, OverLimit};
use crate::http2::hpack::{BadBlock, Decoder, Pseudo};
use crate::method::Method;
use crate::version::Version;
use crate::{octets, status};

/// Reads the head of a request. The outer error breaks the connection, the inner one only the stream.
pub fn decode_request(
    decoder: &mut Decoder,
    block: &[u8],
    limits: &HeadLimits,
) -> Result<Result<RequestHead, BadHead>, BadBlock> {
    let mut reading = Reading::new(limits, HEAD, true);
    let mut said = RequestLine::default();
    decoder.decode(block, |field| {
        reading.take(field, |pseudo, value| said.take(pseudo, value, limits));
    })?;
    Ok(reading.finish().and_then(|fields| said.finish(fields)))
}

/// Reads the head of a response. The outer error breaks the connection, the inner one only the stream.
pub fn decode_response(
    decoder: &mut Decoder,
    block: &[u8],
    limits: &HeadLimits,
) -> Result<Result<ResponseHead, BadHead>, BadBlock> {
    let mut reading = Reading::new(limits, HEAD, false);
    let mut status = None;
    decoder.decode(block, |field| {
        reading.take(field, |pseudo, value| match pseudo {
            Pseudo::Status => once(&mut status, parse_status(value)?),
            _ => Err(Malformed::Pseudo.into()),
        });
    })?;
    Ok(reading.finish().and_then(|fields| {
        judge_length(&fields)?;
        Ok(ResponseHead {
            status: status.ok_or(Malformed::PseudoMissing)?,
            version: Version::Http2,
            fields,
        })
    }))
}

/// Reads trailers. What of them may be forwarded says [`clean_trailers`](crate::http1::clean_trailers). The outer error
/// breaks the connection, the inner one only the stream.
pub fn decode_trailers(
    decoder: &mut Decoder,
    block: &[u8],
    limits: &HeadLimits,
) -> Result<Result<Fields, BadHead>, BadBlock> {
    let mut reading = Reading::new(limits, TRAILERS, false);
    decoder.decode(block, |field| {
        reading.take(field, |_, _| Err(Malformed::Pseudo.into()));
    })?;
    Ok(reading.finish())
}

/// The pseudo-fields of a request, as far as they came.
#[derive(Default)]
struct RequestLine {
    method: Option<Method>,
    scheme: Option<Scheme>,
    authority: Option<Box<str>>,
    path: Option<Box<str>>,
    protocol: Option<Box<str>>,
}

impl RequestLine {
    fn take(&mut self, pseudo: Pseudo, value: &[u8], limits: &HeadLimits) -> Result<(), BadHead> {
        match pseudo {
            Pseudo::Method => {
                let method = Method::parse(value).ok_or(Malformed::Method)?;
                once(&mut self.method, method)
            }
            Pseudo::Scheme => once(&mut self.scheme, Scheme::parse(value)?),
            Pseudo::Authority => {
                let authority = Authority::parse(value).map_err(|_| Malformed::Authority)?;
                once(&mut self.authority, authority.as_str().into())
            }
            Pseudo::Path if value.len() > limits.target_bytes_max => Err(OverLimit::Target.into()),
            Pseudo::Path => once(&mut self.path, parse_path(value)?.into()),
            Pseudo::Protocol => once(&mut self.protocol, parse_protocol(value)?.into()),
            Pseudo::Status => Err(Malformed::Pseudo.into()),
        }
    }

    fn finish(self, fields: Fields) -> Result<RequestHead, BadHead> {
        let method = self.method.ok_or(Malformed::PseudoMissing)?;
        let authority = authority(self.authority, &fields)?;
        let path = match (method, &self.protocol) {
            (Method::Connect, None) => {
                if self.scheme.is_some() || self.path.is_some() {
                    return Err(Malformed::Pseudo.into());
                }
                judge_connect(authority.as_deref())?;
                Box::default()
            }
            (Method::Connect, Some(_)) | (_, None) => {
                self.scheme.ok_or(Malformed::PseudoMissing)?;
                let path = self.path.ok_or(Malformed::PseudoMissing)?;
                let has_form = path.starts_with('/') || method == Method::Options && &*path == "*";
                has_form.then_some(path).ok_or(Malformed::Path)?
            }
            (_, Some(_)) => return Err(Malformed::Protocol.into()),
        };
        judge_length(&fields)?;
        Ok(RequestHead {
            method,
            scheme: self.scheme,
            authority,
            path,
            protocol: self.protocol,
            fields,
        })
    }
}

fn once<T>(said: &mut Option<T>, value: T) -> Result<(), BadHead> {
    match said.replace(value) {
        None => Ok(()),
        Some(_) => Err(Malformed::PseudoTwice.into()),
    }
}

fn parse_path(value: &[u8]) -> Result<&str, Malformed> {
    match octets::is_target(value) {
        true => std::str::from_utf8(value).map_err(|_| Malformed::Path),
        false => Err(Malformed::Path),
    }
}

/// A name, and maybe a version (RFC 9110 §7.8).
fn parse_protocol(value: &[u8]) -> Result<&str, Malformed> {
    match value.splitn(2, |byte| *byte == b'/').all(octets::is_token) {
        true => std::str::from_utf8(value).map_err(|_| Malformed::Protocol),
        false => Err(Malformed::Protocol),
    }
}

fn parse_status(value: &[u8]) -> Result<u16, Malformed> {
    let digits = value.try_into().map_err(|_| Malformed::Status)?;
    match status::parse(digits) {
        None | Some(101) => Err(Malformed::Status),
        Some(status) => Ok(status),
    }
}

/// Whom the request is for: said once, or twice alike.
fn authority(said: Option<Box<str>>, fields: &Fields) -> Result<Option<Box<str>>, Malformed> {
    if !fields.contains(Known::Host) {
        return Ok(said);
    }
    let mut hosts = fields.all(Known::Host);
    let host = hosts.next().unwrap_or_default();
    let host = Authority::parse(host)
        .map_err(|_| Malformed::Host)?
        .as_str();
    let is_same = said
        .as_deref()
        .is_none_or(|said| said.eq_ignore_ascii_case(host));
    match hosts.next() {
        None if is_same => Ok(Some(said.unwrap_or_else(|| host.into()))),
        _ => Err(Malformed::Host),
    }
}

/// CONNECT needs host and port (RFC 9113 §8.5).
fn judge_connect(authority: Option<&str>) -> Result<(), Malformed> {
    let authority = authority.ok_or(Malformed::PseudoMissing)?;
    let port = Authority::parse(authority.as_bytes()).map(|authority| authority.port());
    match port {
        Ok(Some(_)) => Ok(()),
        _ => Err(Malformed::Authority),
    }
}

fn judge_length(fields: &Fields) -> Result<(), Malformed> {
    match fields.contains(Known::ContentLength) && fields.content_length().is_err() {
        true => Err(Malformed::ContentLength),
        false => Ok(()),
    }
}
