//! HTTP/1 and HTTP/2 connections: two protocols, one story.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use http::header::{CONNECTION, HeaderValue};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::server::Acceptor;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use super::stall::Stalling;
use super::strict::{Exchanges, Strict};
use super::{Connection, OpenExchange};
use crate::body::ResponseBody;
use crate::clock;
use crate::detect::{Detected, Spoken, detect};
use crate::head::Response;
use crate::io::Io;
use crate::listen::{HEAD_BYTES_MAX, HEADERS_MAX, ListenerLimits};
use crate::story::{Received, answer};

/// Receive windows of an HTTP/2 client: RFC 9113's default for a stream, room for several in a connection.
const STREAM_WINDOW_BYTES: u32 = 64 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
const SEND_BUFFER_BYTES: usize = 64 * 1024;
/// Streams that a client reset before they were looked at ("rapid reset"), and streams that it provoked us to reset.
const PENDING_RESETS_MAX: usize = 20;
const LOCAL_RESETS_MAX: usize = 100;

/// While draining, an idle HTTP/1 connection may still bring a request for so long: HTTP/1 cannot say goodbye first.
const DRAIN_LINGER_MAX: Duration = Duration::from_secs(5);

/// A connection in the clear: HTTP/2 by prior knowledge, else HTTP/1.
pub(super) async fn clear(connection: Connection, mut io: Io) {
    let looking = detect(&mut io, connection.limits.header_timeout);
    let detected = tokio::select! {
        detected = looking => detected,
        () = connection.drain.cancelled() => return,
    };
    match detected {
        Detected::Spoke(Spoken::Http2, ahead) => {
            serve_http2(connection, io.with_ahead(ahead)).await
        }
        Detected::Spoke(_, ahead) | Detected::Silent(ahead) if !ahead.is_empty() => {
            serve_http1(connection, io.with_ahead(ahead)).await;
        }
        _ => {}
    }
}

/// A connection with TLS: the certificate by server name, the protocol by ALPN.
pub(super) async fn tls(mut connection: Connection, stream: TcpStream) {
    let metrics = connection.shared.metrics.clone();
    let handshake = handshake(&connection, stream);
    let patience = connection.limits.handshake_timeout;
    let (name, stream) = match tokio::time::timeout(patience, handshake).await {
        Ok(Ok(done)) => done,
        Ok(Err(why)) => return metrics.refused("https", why),
        Err(_) => return metrics.refused("https", "handshake-timeout"),
    };
    let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    connection.server_name = name.map(Into::into);
    connection.tls = true;
    match http2 {
        true => serve_http2(connection, Io::from(stream)).await,
        false => serve_http1(connection, Io::from(stream)).await,
    }
}

/// A fatal alert, unrecognized_name (RFC 6066 §3), as a record of its own: the library has only access_denied to say.
const UNRECOGNIZED_NAME: [u8; 7] = [0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 112];

/// The name that the client asked for, and the connection once it is secure.
async fn handshake(
    connection: &Connection,
    stream: TcpStream,
) -> Result<(Option<String>, TlsStream<TcpStream>), &'static str> {
    let failed = |error: std::io::Error| {
        tracing::debug!(client = %connection.client, %error, "TLS handshake failed");
        "handshake"
    };
    let mut start = LazyConfigAcceptor::new(Acceptor::default(), stream)
        .await
        .map_err(failed)?;
    let name = start
        .client_hello()
        .server_name()
        .map(str::to_ascii_lowercase);
    let wanted = name.as_deref().unwrap_or_default();
    let known = {
        let snapshot = connection.shared.snapshot.load();
        snapshot.certificates.find(wanted).is_some()
    };
    if !known {
        let _ = start.io.write_all(&UNRECOGNIZED_NAME).await;
        return Err("unknown-name");
    }
    let config = connection.shared.edge_tls.clone();
    let stream = start.into_stream(config).await.map_err(failed)?;
    Ok((name, stream))
}

/// Serves HTTP/1 until the client, the deadline of a wait, or the drain ends it.
pub(crate) async fn serve_http1(connection: Connection, io: Io) {
    let exchanges = Arc::new(Exchanges::default());
    let strict = Strict::new(io, exchanges.clone(), &connection);
    let (drain, limits) = (connection.drain.clone(), connection.limits);
    let linger = DRAIN_LINGER_MAX.min(connection.shared.options.drain / 2);
    let connection = Arc::new(connection);
    let counted = exchanges.clone();
    let service = service_fn(move |received: Received| {
        let (connection, exchanges) = (connection.clone(), counted.clone());
        let open = exchanges.begin(limits.requests_max);
        async move {
            let mut response = answer(&connection, received).await;
            if response.status == StatusCode::SWITCHING_PROTOCOLS {
                exchanges.change_protocol();
            } else if exchanges.is_retiring() {
                let close = HeaderValue::from_static("close");
                response.headers.insert(CONNECTION, close);
            }
            Ok::<_, Infallible>(into_hyper(response, Some(open)))
        }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEAD_BYTES_MAX + 1024)
        .serve_connection(TokioIo::new(strict), service)
        .with_upgrades();
    let mut serving = pin!(serving);
    tokio::select! {
        _ = serving.as_mut() => return,
        () = drain.cancelled() => {}
        () = retired(&exchanges, &limits) => {}
    }
    // Closing an idle connection now would cross the client's next request; the answer to that request closes it.
    exchanges.retire();
    let lingered = async {
        drain.cancelled().await;
        tokio::time::sleep(linger).await;
    };
    tokio::select! {
        _ = serving.as_mut() => return,
        () = lingered => {}
    }
    serving.as_mut().graceful_shutdown();
    let _ = serving.await;
}

/// Serves HTTP/2 the same way.
pub(crate) async fn serve_http2(connection: Connection, io: Io) {
    let (drain, limits) = (connection.drain.clone(), connection.limits);
    let exchanges = Arc::new(Exchanges::default());
    let builder = http2_builder(&connection);
    let counted = exchanges.clone();
    let connection = Arc::new(connection);
    let service = service_fn(move |received: Received| {
        let connection = connection.clone();
        let open = counted.begin(limits.requests_max);
        async move {
            let response = super::mesh::tunnel_or_answer(&connection, received).await;
            Ok::<_, Infallible>(into_hyper(response, Some(open)))
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
    let jitter = 0.9 + 0.2 * (clock::chance() >> 11) as f64 / (1_u64 << 53) as f64;
    tokio::select! {
        () = tokio::time::sleep(limits.age_max.mul_f64(jitter)) => {}
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

fn into_hyper(response: Response, open: Option<OpenExchange>) -> hyper::Response<ResponseBody> {
    let mut message = hyper::Response::new(response.body.during(open));
    *message.status_mut() = response.status;
    *message.headers_mut() = response.headers;
    message
}
