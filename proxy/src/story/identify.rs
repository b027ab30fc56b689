//! The first step: judge the request, bring it into one form, and know who sent it.

use std::sync::Arc;

use meshgate_codec::http1::strip_hop_by_hop;
use meshgate_codec::{Authority, Fields, Known, Method, Version};
use meshgate_routing::route::normalise;

use super::{Received, Routine};
use crate::body::{Incoming, RequestBody};
use crate::clock::chance;
use crate::failure::{Failure, Reason};
use crate::head::{Destination, Request, is_grpc};
use crate::headers::{self, ForClient, Introduction};
use crate::interims::Interims;
use crate::listen::URI_BYTES_MAX;
use crate::record::Exchange;
use crate::serve::{Connection, Direction, Peer};
use crate::snapshot::Snapshot;

fn bad(detail: &'static str) -> Failure {
    Failure::downstream(Reason::BadRequest, detail)
}

/// Judges a request and takes out of it what the connection, not the application, is concerned with.
pub(super) fn identify(
    connection: &Arc<Connection>,
    snapshot: &Snapshot,
    received: &mut Received,
    exchange: &mut Exchange,
    routine: &mut Routine,
) -> Result<Request, Failure> {
    let authority = authority(received, &mut routine.authority)?;
    let host_end = host_end(&authority);
    let matches_paths = match connection.direction {
        Direction::Edge => true,
        Direction::Inbound => snapshot.workload.access.enforced,
        Direction::Outbound => false,
    };
    let method = received.method;
    let whole = std::mem::take(&mut received.target);
    let (target, path_end) = target(whole, &method, matches_paths, connection.direction)?;
    exchange.asked(method.as_str(), &authority, &target[..path_end]);
    method_allowed(&method)?;
    let body_bytes_max = body_bytes_max(connection, received);
    check_body_length(&received.fields, body_bytes_max)?;
    let mut request = Request {
        upgrade: upgrade(received),
        method,
        version: received.version,
        authority,
        host_end,
        target,
        path_end,
        fields: std::mem::take(&mut received.fields),
        body: RequestBody::new(
            std::mem::replace(&mut received.body, Incoming::Empty),
            body_bytes_max,
        ),
        interims: std::mem::replace(&mut received.interims, Interims::Nowhere),
        destination: None,
    };
    request.destination = destination(connection, &mut request.fields)?;
    request.fields.remove(Known::Host);
    strip_hop_by_hop(&mut request.fields)
        .map_err(|error| Failure::downstream(Reason::BadRequest, error.to_string()))?;
    introduce(
        connection,
        &mut request,
        exchange,
        routine.introduction.as_mut(),
    );
    exchange.body(request.body.replay());
    Ok(request)
}

/// The one authority that the request is for. A connection's next request usually names the same as its last.
fn authority(received: &Received, last: &mut Arc<str>) -> Result<Arc<str>, Failure> {
    let mut hosts = received.fields.all(Known::Host);
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(bad("more than one Host"));
    }
    let named = received.authority.as_deref().map(str::as_bytes);
    let authority = match (named, host) {
        (Some(named), Some(host)) if !named.eq_ignore_ascii_case(host) => {
            return Err(bad("Host and the target's authority differ"));
        }
        (Some(_), None) if received.version == Version::Http11 => return Err(bad("no Host")),
        (Some(named), _) => named,
        (None, Some(host)) => host,
        (None, None) if received.version == Version::Http10 => return Ok("".into()),
        (None, None) => return Err(bad("no Host")),
    };
    // None is empty.
    if authority.is_empty() || *authority != *last.as_bytes() {
        let judged = Authority::parse(authority).map_err(|_| bad("Host is not a host name"))?;
        *last = judged.as_str().into();
    }
    Ok(last.clone())
}

/// Where the host's part ends.
fn host_end(authority: &str) -> usize {
    match authority.starts_with('[') {
        true => authority.find(']').map_or(authority.len(), |end| end + 1),
        false => {
            let colon = authority.bytes().position(|byte| byte == b':');
            colon.unwrap_or(authority.len())
        }
    }
}

/// The target as it is matched and forwarded, and the length of its path. Who does not match paths does not touch them:
/// a sidecar is not seen by applications unless a policy asks for it.
fn target(
    whole: Box<str>,
    method: &Method,
    matches_paths: bool,
    direction: Direction,
) -> Result<(Box<str>, usize), Failure> {
    if whole.len() > URI_BYTES_MAX {
        return Err(Failure::downstream(
            Reason::UriTooLong,
            "more than 8192 bytes",
        ));
    }
    if *whole == *"*" && *method == Method::Options && direction != Direction::Edge {
        return Ok((whole, 1));
    }
    if *method == Method::Connect {
        return Ok(("/".into(), 1));
    }
    let mark = whole.bytes().position(|byte| byte == b'?');
    let (path, query) = whole.split_at(mark.unwrap_or(whole.len()));
    let given = if path.is_empty() { "/" } else { path };
    let normal = match matches_paths {
        true => normalise(given)
            .map_err(|problem| Failure::downstream(Reason::BadRequest, problem.to_string()))?,
        false => given.into(),
    };
    let path_end = normal.len();
    if *normal == *path {
        // As nearly all are.
        return Ok((whole, path_end));
    }
    Ok(([&*normal, query].concat().into(), path_end))
}

/// CONNECT never goes through the story of a request: tunnels between proxies are taken before it.
fn method_allowed(method: &Method) -> Result<(), Failure> {
    if *method == Method::Connect {
        return Err(Failure::downstream(
            Reason::MethodNotAllowed,
            "CONNECT is not served",
        ));
    }
    Ok(())
}

/// A stream of gRPC has no size: it is as long as its call.
fn body_bytes_max(connection: &Connection, received: &Received) -> Option<u64> {
    let max = connection.limits.body_bytes_max?;
    let is_stream = received.version == Version::Http2 && is_grpc(&received.fields);
    (!is_stream).then_some(max)
}

fn check_body_length(fields: &Fields, max: Option<u64>) -> Result<(), Failure> {
    let length = fields
        .content_length()
        .map_err(|bad| Failure::downstream(Reason::BadRequest, bad.to_string()))?;
    if length.zip(max).is_some_and(|(length, max)| length > max) {
        return Err(Failure::downstream(
            Reason::BodyTooLarge,
            "the body is larger than allowed",
        ));
    }
    Ok(())
}

/// A change of protocol that the client asks for. `h2c` is refused: it would smuggle a second protocol past the rules;
/// and not a fault: the client goes on with HTTP/1.1 (RFC 9110 §7.8). A body would stand between the two protocols.
fn upgrade(received: &Received) -> Option<Box<str>> {
    if received.protocol.is_some() {
        return received.protocol.clone();
    }
    let asks = received.version == Version::Http11
        && received.body.is_ended()
        && received.fields.has_token(Known::Connection, "upgrade")
        && !received.fields.has_token(Known::Upgrade, "h2c");
    let protocol = received.fields.get(Known::Upgrade).filter(|_| asks)?;
    std::str::from_utf8(protocol).ok().map(Box::from)
}

/// Port and protocol of the application, from a verified proxy only.
fn destination(
    connection: &Connection,
    fields: &mut Fields,
) -> Result<Option<Destination>, Failure> {
    let parsed = fields
        .get(Known::MeshgateDest)
        .and_then(|value| std::str::from_utf8(value).ok())
        .and_then(|text| parse_destination(text.trim()));
    fields.remove(Known::MeshgateDest);
    if !connection.from_mesh {
        return Ok(None);
    }
    if let Some(destination) = connection.inside_tunnel {
        return Ok(Some(destination));
    }
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
fn introduce(
    connection: &Connection,
    request: &mut Request,
    exchange: &mut Exchange,
    introduction: Option<&mut Introduction>,
) {
    let options = &connection.shared.options;
    let peer = connection.client.ip().to_canonical();
    let is_trusted = |address| {
        options
            .trusted_peers
            .iter()
            .any(|net| net.contains(&address))
    };
    let trusted = connection.direction != Direction::Edge || is_trusted(peer);
    let fields = &mut request.fields;
    if connection.direction == Direction::Edge {
        let facts = ForClient {
            peer,
            trusted,
            scheme: connection.scheme(),
            authority: &request.authority,
        };
        let client = facts.client(fields, is_trusted);
        match introduction.filter(|_| !trusted) {
            Some(introduction) => introduction.apply(&facts, fields),
            None => facts.apply(fields, client),
        }
        exchange.client((client.unwrap_or(peer), connection.client.port()).into());
    }
    let mesh = match connection.direction {
        Direction::Inbound => connection.shared.mesh.load_full(),
        Direction::Edge | Direction::Outbound => None,
    };
    let identities = match (&connection.peer, &mesh) {
        (Peer::Known(peer), Some(mesh)) => Some((mesh.identity.as_str(), peer.as_str())),
        _ => None,
    };
    headers::set_client_cert(fields, identities);
    let chance = [chance(), chance(), chance()];
    headers::name_request(fields, trusted, chance);
    match &connection.shared.tracer {
        None => headers::name_trace(fields, trusted, chance),
        Some(tracer) => {
            if let Some(trace) = tracer.begin(fields, trusted, chance) {
                exchange.traced(trace, connection, request);
            }
        }
    }
    exchange.named(request.fields.get(Known::XRequestId).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::{host_end, parse_destination};
    use crate::head::Destination;

    #[test]
    fn hosts() {
        assert_eq!(&"[::1]:80"[..host_end("[::1]:80")], "[::1]");
        assert_eq!(&"a.test:80"[..host_end("a.test:80")], "a.test");
        assert_eq!(host_end("a.test"), 6);
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
