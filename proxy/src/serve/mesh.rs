//! Connections from other proxies: mTLS, HTTP/2; requests for the application, and tunnels to it (CONNECT).

use std::net::SocketAddr;
use std::sync::Arc;

use http::{Method, StatusCode};
use meshgate_codec::Fields;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::{Connection, Direction, Peer, serve_http1, serve_http2};
use crate::body::ResponseBody;
use crate::failure::{Failure, Reason};
use crate::head::{Destination, Response};
use crate::headers::DESTINATION;
use crate::io::Io;
use crate::reply::{self, Manner};
use crate::story::{Answer, Received, answer, parse_destination};

/// Port 15008. Whoever does not prove an identity of the mesh gets no answer.
pub(super) async fn serve(mut connection: Connection, stream: TcpStream) {
    let metrics = connection.shared.metrics.clone();
    let refused = |why| metrics.refused("inbound-mtls", why);
    let Some(mesh) = connection.shared.mesh.load_full() else {
        return refused("no-certificate");
    };
    let handshake = TlsAcceptor::from(mesh.server.clone()).accept(stream);
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
    serve_http2(connection, Io::from(stream)).await;
}

/// A request as the HTTP/2 library gives it.
pub(super) type Message = hyper::Request<hyper::body::Incoming>;

/// A stream of an HTTP/2 connection: a tunnel from another proxy, or a request.
pub(super) async fn tunnel_or_answer(connection: &Arc<Connection>, message: Message) -> Response {
    let is_tunnel = connection.from_mesh
        && connection.direction == Direction::Inbound
        && message.method() == Method::CONNECT;
    if is_tunnel {
        return match tunnel(connection, message).await {
            Ok(()) => Response {
                status: StatusCode::OK,
                fields: Fields::default(),
                body: ResponseBody::empty(),
                closes: false,
            },
            Err(failure) => reply::to_failure(&failure, Manner::Text),
        };
    }
    let received = match Received::from_http2(message) {
        Ok(received) => received,
        Err(failure) => return reply::to_failure(&failure, Manner::Text),
    };
    match answer(connection, received).await {
        Answer::Response(response) | Answer::Switch(response, _) => response,
    }
}

/// Agrees to a tunnel; what it carries is served by a task of its own once the agreement is sent.
async fn tunnel(connection: &Arc<Connection>, mut received: Message) -> Result<(), Failure> {
    let bad = |detail| Failure::downstream(Reason::BadRequest, detail);
    let port = received
        .uri()
        .authority()
        .and_then(|authority| authority.port_u16())
        .filter(|port| *port > 0)
        .ok_or_else(|| bad("CONNECT without a port"))?;
    let inside = received
        .headers()
        .get(DESTINATION)
        .and_then(|value| parse_destination(value.to_str().ok()?));
    let client = hyper::upgrade::on(&mut received);
    match inside {
        Some(inside) => {
            http_inside(connection, client, inside);
            Ok(())
        }
        None => {
            let address: SocketAddr = connection.application(port);
            crate::tcp::tunnel_to(connection, client, address).await
        }
    }
}

/// Requests that HTTP/2 cannot carry come as HTTP/1 within the tunnel.
fn http_inside(
    connection: &Arc<Connection>,
    client: hyper::upgrade::OnUpgrade,
    inside: Destination,
) {
    let mut connection = Connection::clone(connection);
    connection.inside_tunnel = Some(inside);
    let tasks = connection.tasks.clone();
    tasks.spawn_connection(async move {
        if let Ok(upgraded) = client.await {
            serve_http1(connection, Io::tunnel(upgraded)).await;
        }
    });
}
