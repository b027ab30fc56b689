//! The first step: judge the request, bring it into one form, and know who sent it.

use std::sync::Arc;

use http::header;
use http::uri::Authority;
use http::{HeaderMap, Method};
use meshgate_routing::route::normalise;

use super::Received;
use crate::body::RequestBody;
use crate::clock::chance;
use crate::failure::{Failure, Reason};
use crate::head::{Destination, Request, Upgrade, Version};
use crate::headers::{self, DESTINATION, ForClient, X_REQUEST_ID};
use crate::listen::URI_BYTES_MAX;
use crate::record::Exchange;
use crate::serve::{Connection, Direction, Peer};
use crate::snapshot::Snapshot;

pub(crate) fn version(received: &Received) -> Version {
    match received.version() {
        http::Version::HTTP_2 => Version::Http2,
        http::Version::HTTP_10 => Version::Http10,
        _ => Version::Http11,
    }
}

fn bad(detail: &'static str) -> Failure {
    Failure::downstream(Reason::BadRequest, detail)
}

/// Judges a request and takes out of it what the connection, not the application, is concerned with.
pub(super) fn identify(
    connection: &Arc<Connection>,
    snapshot: &Snapshot,
    mut received: Received,
    exchange: &mut Exchange,
) -> Result<Request, Failure> {
    let version = version(&received);
    let authority = authority(&received, version)?;
    let host_end = host_end(&authority);
    let matches_paths = match connection.direction {
        Direction::Edge => true,
        Direction::Inbound => snapshot.workload.access.enforced,
        Direction::Outbound => false,
    };
    let (target, path_end) = target(&received, matches_paths, connection.direction)?;
    exchange.asked(
        received.method().as_str(),
        &authority,
        &target[..path_end],
        "",
    );
    method_allowed(connection.direction, received.method())?;
    check_body_length(connection, received.headers())?;
    let upgrade = upgrade(&mut received, version)?;
    let (head, incoming) = received.into_parts();
    let mut request = Request {
        method: head.method,
        version,
        authority,
        host_end,
        target,
        path_end,
        headers: head.headers,
        body: RequestBody::new(incoming, connection.limits.body_bytes_max),
        upgrade,
        destination: None,
    };
    request.destination = destination(connection, &mut request.headers)?;
    request.headers.remove(header::HOST);
    headers::strip_hop_by_hop(&mut request.headers);
    introduce(connection, &mut request, exchange);
    exchange.body(request.body.replay());
    Ok(request)
}

/// The one authority that the request is for.
fn authority(received: &Received, version: Version) -> Result<Box<str>, Failure> {
    let mut hosts = received.headers().get_all(header::HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(bad("more than one Host"));
    }
    let host = match host {
        Some(host) => Some(host.to_str().map_err(|_| bad("Host is not readable"))?),
        None => None,
    };
    let named = received.uri().authority().map(Authority::as_str);
    let authority = match (named, host) {
        (Some(named), Some(host)) if !named.eq_ignore_ascii_case(host) => {
            return Err(bad("Host and the target's authority differ"));
        }
        (Some(named), _) => named,
        (None, Some(host)) => host,
        (None, None) if version == Version::Http10 => "",
        (None, None) => return Err(bad("no Host")),
    };
    if !authority.is_empty() && !is_authority(authority) {
        return Err(bad("Host is not a host name"));
    }
    Ok(authority.into())
}

/// `name`, `name:port`, `[v6]` or `[v6]:port`; no user, no percent-encoding.
fn is_authority(authority: &str) -> bool {
    let end = host_end(authority);
    let (host, port) = authority.split_at(end);
    let port_ok = match port.strip_prefix(':') {
        None => port.is_empty(),
        Some(digits) => digits.is_empty() || digits.parse::<u16>().is_ok(),
    };
    let host_ok = match host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
    {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            !host.is_empty()
                && host.len() <= 255
                && host.bytes().all(|byte| {
                    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b'~')
                })
        }
    };
    host_ok && port_ok
}

/// Where the host's part ends.
fn host_end(authority: &str) -> usize {
    match authority.rfind(']') {
        Some(bracket) => bracket + 1,
        None => authority.find(':').unwrap_or(authority.len()),
    }
}

/// The target as it is matched and forwarded, and the length of its path. Who does not match paths does not touch them:
/// a sidecar is not seen by applications unless a policy asks for it.
fn target(
    received: &Received,
    matches_paths: bool,
    direction: Direction,
) -> Result<(Box<str>, usize), Failure> {
    let uri = received.uri();
    let whole = uri.path_and_query().map_or("/", |target| target.as_str());
    if whole.len() > URI_BYTES_MAX {
        return Err(Failure::downstream(
            Reason::UriTooLong,
            "more than 8192 bytes",
        ));
    }
    let path = match uri.path() {
        "" => "/",
        path => path,
    };
    if path == "*" && received.method() == Method::OPTIONS && direction != Direction::Edge {
        return Ok(("*".into(), 1));
    }
    if received.method() == Method::CONNECT {
        return Ok(("/".into(), 1));
    }
    let path = match matches_paths {
        true => normalise(path)
            .map_err(|problem| Failure::downstream(Reason::BadRequest, problem.to_string()))?,
        false => path.into(),
    };
    let mut target = String::with_capacity(whole.len());
    target.push_str(&path);
    let path_end = target.len();
    if let Some(query) = uri.query() {
        target.push('?');
        target.push_str(query);
    }
    Ok((target.into(), path_end))
}

/// CONNECT never goes through the story of a request: tunnels between proxies are taken before it.
fn method_allowed(_direction: Direction, method: &Method) -> Result<(), Failure> {
    if *method == Method::CONNECT {
        return Err(Failure::downstream(
            Reason::MethodNotAllowed,
            "CONNECT is not served",
        ));
    }
    Ok(())
}

fn check_body_length(connection: &Connection, fields: &HeaderMap) -> Result<(), Failure> {
    let Some(length) = fields.get(header::CONTENT_LENGTH) else {
        return Ok(());
    };
    let length: u64 = length
        .to_str()
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| bad("Content-Length is no number"))?;
    if connection
        .limits
        .body_bytes_max
        .is_some_and(|max| length > max)
    {
        return Err(Failure::downstream(
            Reason::BodyTooLarge,
            "the body is larger than allowed",
        ));
    }
    Ok(())
}

/// A change of protocol that the client asks for. `h2c` is refused: it would smuggle a second protocol past the rules.
fn upgrade(received: &mut Received, version: Version) -> Result<Option<Upgrade>, Failure> {
    if version != Version::Http11
        || !headers::has_token(received.headers(), header::CONNECTION, "upgrade")
    {
        return Ok(None);
    }
    let Some(protocol) = received.headers().get(header::UPGRADE).cloned() else {
        return Ok(None);
    };
    if headers::has_token(received.headers(), header::UPGRADE, "h2c") {
        // Not a fault: the client goes on with HTTP/1.1 (RFC 9110 §7.8).
        return Ok(None);
    }
    Ok(Some(Upgrade {
        protocol,
        client: hyper::upgrade::on(received),
    }))
}

/// Port and protocol of the application, from a verified proxy only.
fn destination(
    connection: &Connection,
    fields: &mut HeaderMap,
) -> Result<Option<Destination>, Failure> {
    let value = fields.remove(&DESTINATION);
    if !connection.from_mesh {
        return Ok(None);
    }
    if let Some(destination) = connection.inside_tunnel {
        return Ok(Some(destination));
    }
    let parsed = value
        .as_ref()
        .and_then(|value| value.to_str().ok())
        .and_then(|text| parse_destination(text.trim()));
    match parsed {
        Some(destination) => Ok(Some(destination)),
        None => Err(bad("meshgate-dest is missing or no port")),
    }
}

pub(crate) fn parse_destination(text: &str) -> Option<Destination> {
    let (port, protocol) = match text.split_once(';') {
        Some((port, protocol)) => (port, protocol.trim()),
        None => (text, "h1"),
    };
    Some(Destination {
        port: port.trim().parse().ok().filter(|port| *port > 0)?,
        http2: protocol == "h2",
    })
}

/// Tells the application who asks, and names the request.
fn introduce(connection: &Connection, request: &mut Request, exchange: &mut Exchange) {
    let options = &connection.shared.options;
    let peer = connection.client.ip().to_canonical();
    let is_trusted = |address| {
        options
            .trusted_peers
            .iter()
            .any(|net| net.contains(&address))
    };
    let trusted = connection.direction != Direction::Edge || is_trusted(peer);
    let fields = &mut request.headers;
    if connection.direction == Direction::Edge {
        let facts = ForClient {
            peer,
            trusted,
            scheme: connection.scheme(),
            authority: &request.authority,
        };
        let client = facts.client(fields, is_trusted);
        facts.apply(fields, client);
        exchange.client((client, connection.client.port()).into());
    }
    let mesh = connection.shared.mesh.load();
    let identities = match (&connection.peer, &*mesh, connection.direction) {
        (Peer::Known(peer), Some(mesh), Direction::Inbound) => {
            Some((mesh.identity.as_str(), peer.as_str()))
        }
        _ => None,
    };
    headers::set_client_cert(fields, identities);
    headers::name_request(fields, trusted, [chance(), chance(), chance()]);
    let id = fields
        .get(&X_REQUEST_ID)
        .and_then(|id| id.to_str().ok())
        .unwrap_or_default();
    let (host, path) = (&request.authority, &request.target[..request.path_end]);
    exchange.asked(request.method.as_str(), host, path, id);
}

#[cfg(test)]
mod tests {
    use super::{host_end, is_authority, parse_destination};
    use crate::head::Destination;

    #[test]
    fn authorities() {
        for good in [
            "a.test",
            "a.test:80",
            "127.0.0.1:8080",
            "[::1]:8080",
            "[::1]",
            "my_host",
            "a.test:",
        ] {
            assert!(is_authority(good), "{good}");
        }
        for bad in [
            "",
            ":80",
            "a b",
            "a@b",
            "a.test:99999",
            "a.test:8o",
            "[::1",
            "a/b",
            "a%41",
        ] {
            assert!(!is_authority(bad), "{bad}");
        }
        assert_eq!(&"[::1]:80"[..host_end("[::1]:80")], "[::1]");
    }

    #[test]
    fn destinations() {
        let parsed = |port, http2| Some(Destination { port, http2 });
        assert_eq!(parse_destination("8080; h2"), parsed(8080, true));
        assert_eq!(parse_destination("8080"), parsed(8080, false));
        assert_eq!(parse_destination("0"), None);
        assert_eq!(parse_destination("x; h2"), None);
    }
}
