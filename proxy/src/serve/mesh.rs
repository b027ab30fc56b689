//! Connections from other proxies: mTLS, HTTP/2; requests for the application, and tunnels to it (CONNECT).

use std::sync::Arc;

use http::StatusCode;
use meshgate_codec::http2::RequestHead;
use meshgate_codec::{Authority, Fields, Method};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::{Connection, Direction, Peer, Serving, serve_http1, serve_http2};
use crate::corked::Corked;
use crate::failure::{Failure, Reason};
use crate::head::Destination;
use crate::headers::DESTINATION;
use crate::http2::Stream;
use crate::io::Io;
use crate::reply::{self, Manner};
use crate::story::parse_destination;
use crate::tcp;

/// Port 15008. Whoever does not prove an identity of the mesh gets no answer.
pub(super) async fn accept(mut connection: Connection, stream: TcpStream) -> Option<Serving> {
    let metrics = connection.shared.metrics.clone();
    let refused = |why| {
        metrics.refused("inbound-mtls", why);
        None
    };
    let Some(mesh) = connection.shared.mesh.load_full() else {
        return refused("no-certificate");
    };
    let handshake = TlsAcceptor::from(mesh.server.clone()).accept(Corked::new(stream));
    let patience = connection.limits.handshake_timeout;
    let stream = match tokio::time::timeout(patience, handshake).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::debug!(client = %connection.client, %error, "mTLS handshake failed");
            return refused("handshake");
        }
        Err(_) => return refused("handshake-timeout"),
    };
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    match (mesh.identify)(chain) {
        Ok(identity) => connection.peer = Peer::Known(identity),
        Err(error) => {
            tracing::debug!(client = %connection.client, %error, "peer has no identity");
            return refused("identity");
        }
    }
    connection.tls = true;
    connection.from_mesh = true;
    Some(serve_http2(connection, Io::from(stream)))
}

/// Whether another proxy asks for a tunnel to the application (RFC 9113 §8.5).
pub(super) fn is_tunnel(connection: &Connection, head: &RequestHead) -> bool {
    connection.from_mesh
        && connection.direction == Direction::Inbound
        && head.method == Method::Connect
        && head.protocol.is_none()
}

/// Connects a tunnel, and serves what it carries.
pub(super) async fn tunnel(connection: &Arc<Connection>, stream: Stream, head: RequestHead) {
    let text = |value: &[u8]| std::str::from_utf8(value).ok().and_then(parse_destination);
    let inside = head.fields.get(DESTINATION).and_then(text);
    let authority = head.authority.as_deref().unwrap_or_default();
    let port = Authority::parse(authority.as_bytes()).map(|authority| authority.port());
    match (inside, port) {
        (Some(inside), Ok(Some(1..))) => http_inside(connection, stream, inside).await,
        (None, Ok(Some(port @ 1..))) => {
            let address = connection.application(port);
            tcp::tunnel_to(connection, stream, address).await;
        }
        _ => {
            let failure = Failure::downstream(Reason::BadRequest, "CONNECT without a port");
            let response = reply::to_failure(&failure, Manner::Text);
            stream.respond(response).await;
        }
    }
}

/// Requests that HTTP/2 cannot carry come as HTTP/1 within the tunnel.
async fn http_inside(connection: &Arc<Connection>, stream: Stream, inside: Destination) {
    let mut connection = Connection::clone(connection);
    connection.inside_tunnel = Some(inside);
    if let Some(client) = stream.agree(StatusCode::OK.as_u16(), &Fields::default()) {
        serve_http1(connection, client.into()).await;
    }
}
