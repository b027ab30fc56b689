//! What a request is hashed by, where a service wants the same endpoint for the same key.

use std::fmt::Write as _;
use std::net::IpAddr;

use meshgate_codec::{Fields, Known};
use meshgate_routing::route::parameter;

use super::permit::client_address;
use crate::clock::chance;
use crate::head::Request;
use crate::serve::Connection;
use crate::service::{HashCookie, HashOn};

/// The key of a request; without one, chance and load decide.
#[derive(Debug, Default)]
pub(crate) struct Affinity {
    key: Option<Box<[u8]>>,
    /// What a client without the cookie is given, so that it comes back to the same endpoint.
    cookie: Option<String>,
}

impl Affinity {
    /// Of a request.
    pub(super) fn of(connection: &Connection, request: &Request, on: Option<&HashOn>) -> Self {
        let key = match on {
            None => return Self::default(),
            Some(HashOn::Cookie(cookie)) => return Self::by_cookie(connection, request, cookie),
            Some(HashOn::Header(name)) => request.said(name).map(|said| said.as_ref().into()),
            Some(HashOn::Query(name)) => parameter(request.query(), name).map(Into::into),
            Some(HashOn::ClientAddress) => Some(octets(client_address(request, connection))),
        };
        Self {
            key: key.filter(|key| !key.is_empty()),
            cookie: None,
        }
    }

    /// Of a TCP connection, which says nothing else.
    pub(crate) fn of_connection(connection: &Connection, on: Option<&HashOn>) -> Self {
        let by_address = matches!(on, Some(HashOn::ClientAddress));
        Self {
            key: by_address.then(|| octets(connection.client.ip())),
            cookie: None,
        }
    }

    fn by_cookie(connection: &Connection, request: &Request, cookie: &HashCookie) -> Self {
        let sent = request.fields.all(Known::Cookie);
        let found = sent
            .flat_map(|line| line.split(|byte| *byte == b';'))
            .find_map(|pair| {
                pair.trim_ascii()
                    .strip_prefix(cookie.name.as_bytes())?
                    .strip_prefix(b"=")
            })
            .filter(|value| !value.is_empty());
        if let Some(value) = found {
            return Self {
                key: Some(value.into()),
                cookie: None,
            };
        }
        let Some(ttl) = cookie.ttl else {
            return Self::default();
        };
        let value = format!("{:016x}", chance());
        let mut line = format!("{}={value}; Path=/; HttpOnly; SameSite=Lax", cookie.name);
        // Without an age it lasts as long as the browser's session. Writing to a String cannot fail.
        if !ttl.is_zero() {
            let _ = write!(line, "; Max-Age={}", ttl.as_secs().max(1));
        }
        if connection.tls {
            line.push_str("; Secure");
        }
        Self {
            key: Some(value.into_bytes().into()),
            cookie: Some(line),
        }
    }

    /// What is hashed.
    pub(crate) fn key(&self) -> Option<&[u8]> {
        self.key.as_deref()
    }

    /// Tells the client which endpoint was chosen for it.
    pub(super) fn introduce(self, fields: &mut Fields) {
        if let Some(cookie) = self.cookie
            && fields.append(Known::SetCookie, cookie.as_bytes()).is_err()
        {
            tracing::debug!("the answer's head has no room for the cookie of its endpoint");
        }
    }
}

fn octets(address: IpAddr) -> Box<[u8]> {
    match address.to_canonical() {
        IpAddr::V4(address) => address.octets().into(),
        IpAddr::V6(address) => address.octets().into(),
    }
}
