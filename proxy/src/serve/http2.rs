//! HTTP/2 connections: many requests at once, each told as the same story.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use http::StatusCode;
use meshgate_codec::http1::{HeadLimits, OverLimit};
use meshgate_codec::http2::{BadHead, Config, RequestHead};

use super::mesh::{is_tunnel, tunnel};
use super::{Connection, Serving, retirement};
use crate::body::Incoming;
use crate::clock;
use crate::failure::{Failure, Reason};
use crate::head::{Closes, Response, Switch};
use crate::http2::{Opened, Server, Stream};
use crate::interims::Interims;
use crate::io::Io;
use crate::listen::{FIELD_BYTES_MAX, HEAD_BYTES_MAX, HEADERS_MAX, URI_BYTES_MAX};
use crate::reply::{self, Manner};
use crate::story::{Answer, Received, answer};
use crate::tcp;
use crate::websocket;

/// Receive windows of an HTTP/2 client: about RFC 9113's default for a stream, room for several in a connection.
const STREAM_WINDOW_BYTES: u32 = 64 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
/// Another proxy's streams belong to clients that know nothing of each other: those whose bodies nobody reads must not
/// stop the others. It opens a hundred of them on one connection.
const MESH_WINDOW_BYTES: u32 = 128 * STREAM_WINDOW_BYTES;
/// Between proxies of the mesh there are fields of their own besides the client's.
const OWN_FIELDS_MAX: usize = 16;
const OWN_FIELD_BYTES_MAX: usize = 4 * 1024;

/// Serves a connection until the client, the deadline of a wait, or the drain ends it.
pub(crate) fn serve_http2(connection: Connection, io: Io) -> Serving {
    let server = Server::new(io, config(&connection), connection.limits);
    // What a future is given it holds twice.
    Box::pin(serve_streams(Arc::new(connection), Box::new(server)))
}

async fn serve_streams(connection: Arc<Connection>, mut server: Box<Server>) {
    let old_at = clock::moment().instant + retirement(&connection.limits);
    let mut served = 0;
    let mut stories = FuturesUnordered::new();
    let streams_max = connection.limits.streams as usize;
    let mut drained = pin!(connection.drain.cancelled());
    let mut draining = false;
    poll_fn(|cx| {
        loop {
            if !draining && drained.as_mut().poll(cx).is_ready() {
                draining = true;
                server.leave();
            }
            let more = match server.poll_next(cx) {
                Poll::Ready(Opened::Request { stream, head, body }) => {
                    served += 1;
                    if served >= connection.limits.requests_max || clock::moment().instant >= old_at
                    {
                        server.leave();
                    }
                    // Boxed: even an empty set has room for one, for as long as the connection lives.
                    let story = until_gone(connection.clone(), stream, head, body);
                    stories.push(Box::pin(story));
                    if stories.len() <= streams_max {
                        continue;
                    }
                    // Some were given up meanwhile: they go before others come.
                    true
                }
                Poll::Ready(Opened::Closed) => return Poll::Ready(()),
                Poll::Pending => false,
            };
            let mut ended = false;
            while let Poll::Ready(Some(closes)) = stories.poll_next_unpin(cx) {
                ended = true;
                if closes == Closes::Any {
                    server.leave();
                }
            }
            // Whatever the stories have to say goes out together.
            let more = server.flush(cx) || more;
            if !ended && !more {
                return Poll::Pending;
            }
        }
    })
    .await;
    drop(stories);
    for _ in 0..server.take_refused() {
        let direction = connection.direction.name();
        connection.shared.metrics.refused(direction, "malformed");
    }
    server.close().await;
}

fn config(connection: &Connection) -> Config {
    let (own_fields, own_bytes, connection_window) = match connection.from_mesh {
        true => (OWN_FIELDS_MAX, OWN_FIELD_BYTES_MAX, MESH_WINDOW_BYTES),
        false => (0, 0, CONNECTION_WINDOW_BYTES),
    };
    Config {
        streams_max: connection.limits.streams,
        stream_window: STREAM_WINDOW_BYTES,
        connection_window,
        limits: HeadLimits {
            head_bytes_max: HEAD_BYTES_MAX + own_bytes,
            fields_max: HEADERS_MAX + own_fields,
            field_bytes_max: FIELD_BYTES_MAX,
            target_bytes_max: URI_BYTES_MAX,
        },
        extended_connect: !connection.from_mesh,
        speaks_for_many: connection.from_mesh,
    }
}

/// A stream's story, which ends at once when the client gives the stream up.
async fn until_gone(
    connection: Arc<Connection>,
    stream: Stream,
    head: Result<RequestHead, BadHead>,
    body: Incoming,
) -> Closes {
    let watch = stream.watch();
    let mut story = pin!(story(&connection, stream, head, body));
    poll_fn(|cx| match watch.poll_gone(cx) {
        Poll::Ready(()) => Poll::Ready(Closes::Nothing),
        Poll::Pending => story.as_mut().poll(cx),
    })
    .await
}

/// What a stream is for: a tunnel from another proxy, another protocol, or a request.
async fn story(
    connection: &Arc<Connection>,
    stream: Stream,
    head: Result<RequestHead, BadHead>,
    body: Incoming,
) -> Closes {
    let head = match head {
        Ok(head) if is_tunnel(connection, &head) => {
            tunnel(connection, stream, head).await;
            return Closes::Nothing;
        }
        Ok(head) => head,
        Err(bad) => {
            refuse(connection, stream, bad).await;
            return Closes::Nothing;
        }
    };
    let is_extended = head.protocol.is_some();
    let body = match is_extended {
        // What comes on the stream belongs to the other protocol.
        true => Incoming::Empty,
        false => body,
    };
    let interims = Interims::Http2(stream.interims());
    match answer(connection, Received::from_http2(head, body, interims)).await {
        Answer::Response(response) => {
            let closes = response.closes;
            stream.respond(response).await;
            closes
        }
        Answer::Switch(response, switch) => {
            change_protocol(connection, stream, response, *switch).await;
            Closes::Nothing
        }
    }
}

/// Both sides agreed to speak something else: bytes are passed from now on (RFC 8441 §5).
async fn change_protocol(
    connection: &Arc<Connection>,
    stream: Stream,
    mut response: Response,
    switch: Switch,
) {
    // It answers the key that was made up in the client's place.
    response.fields.remove(websocket::ACCEPT);
    let agreed = stream.agree(StatusCode::OK.as_u16(), &response.fields);
    if let Some(client) = agreed {
        tcp::relay_upgraded(connection, client.into(), switch).await;
    }
}

/// Answers a head that is larger than allowed.
async fn refuse(connection: &Arc<Connection>, stream: Stream, bad: BadHead) {
    let reason = match bad {
        BadHead::Over(OverLimit::Target) => Reason::UriTooLong,
        BadHead::Over(_) => Reason::HeadersTooLarge,
        BadHead::Malformed(_) | BadHead::Scheme => Reason::BadRequest,
    };
    let metrics = &connection.shared.metrics;
    metrics.refused(connection.direction.name(), reason.as_str());
    let failure = Failure::downstream(reason, bad.to_string());
    let mut response = reply::to_failure(&failure, Manner::Text);
    connection.direction.sign(&mut response.fields);
    if let Ok(status) = StatusCode::from_u16(bad.status()) {
        response.status = status;
    }
    stream.respond(response).await;
}
