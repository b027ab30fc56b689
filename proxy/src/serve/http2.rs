//! HTTP/2 connections: many requests at once, each told as the same story.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};

use super::exchanges::Exchanges;
use super::mesh::{Message, tunnel_or_answer};
use super::{Connection, OpenExchange, retirement};
use crate::body::ResponseBody;
use crate::clock;
use crate::head::Response;
use crate::http2::to_header_map;
use crate::io::Io;
use crate::listen::{HEAD_BYTES_MAX, ListenerLimits};
use crate::stall::Stalling;

/// Receive windows of an HTTP/2 client: RFC 9113's default for a stream, room for several in a connection.
const STREAM_WINDOW_BYTES: u32 = 64 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
const SEND_BUFFER_BYTES: usize = 64 * 1024;
/// Streams that a client reset before they were looked at ("rapid reset"), and streams that it provoked us to reset.
const PENDING_RESETS_MAX: usize = 20;
const LOCAL_RESETS_MAX: usize = 100;

/// Serves a connection until the client, the deadline of a wait, or the drain ends it.
pub(crate) async fn serve_http2(connection: Connection, io: Io) {
    let (drain, limits) = (connection.drain.clone(), connection.limits);
    let exchanges = Arc::new(Exchanges::default());
    let builder = http2_builder(&connection);
    let counted = exchanges.clone();
    let connection = Arc::new(connection);
    let service = service_fn(move |received: Message| {
        let connection = connection.clone();
        let open = counted.begin(limits.requests_max);
        async move {
            let response = tunnel_or_answer(&connection, received).await;
            Ok::<_, Infallible>(into_library(response, open))
        }
    });
    let serving = builder.serve_connection(
        TokioIo::new(Stalling::new(io, limits.write_stall_timeout)),
        service,
    );
    let mut serving = pin!(serving);
    tokio::select! {
        _ = serving.as_mut() => return,
        () = drain.cancelled() => {}
        () = unused(&exchanges, limits.keep_alive) => {}
        () = retired(&exchanges, &limits) => {}
    }
    // Says GOAWAY and finishes what was begun.
    serving.as_mut().graceful_shutdown();
    let _ = serving.await;
}

fn http2_builder(connection: &Connection) -> http2::Builder<crate::worker::Tasks> {
    let mut builder = http2::Builder::new(connection.tasks.clone());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(connection.limits.streams)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .max_header_list_size(HEAD_BYTES_MAX as u32)
        .max_pending_accept_reset_streams(PENDING_RESETS_MAX)
        .max_local_error_reset_streams(LOCAL_RESETS_MAX)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20));
    builder
}

/// Returns when the connection is old, or has carried enough requests.
async fn retired(exchanges: &Exchanges, limits: &ListenerLimits) {
    tokio::select! {
        () = tokio::time::sleep(retirement(limits)) => {}
        () = exchanges.used_up() => {}
    }
}

/// Returns when no exchange was open for so long.
async fn unused(exchanges: &Exchanges, patience: Duration) {
    let begun = clock::now();
    loop {
        let since = exchanges.last_end().max(begun);
        let quiet = clock::now().since(since);
        if exchanges.is_open() {
            tokio::time::sleep(patience).await;
        } else if quiet >= patience {
            return;
        } else {
            tokio::time::sleep(patience - quiet).await;
        }
    }
}

fn into_library(response: Response, open: OpenExchange) -> hyper::Response<ResponseBody> {
    let mut message = hyper::Response::new(response.body.during(open));
    *message.status_mut() = response.status;
    *message.headers_mut() = to_header_map(&response.fields);
    message
}
