//! `/ws`: sends back every message until the client closes.

use futures::{SinkExt as _, StreamExt as _};
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use http::{HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use crate::http_server::{AnswerBody, Connection, full, text};
use crate::log;

/// Largest message that is taken and sent back.
const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// Answers the upgrade; the connection is the WebSocket's afterwards.
pub(crate) fn answer(
    connection: &Connection,
    mut request: Request<Incoming>,
) -> Response<AnswerBody> {
    let Some(key) = request.headers().get(SEC_WEBSOCKET_KEY) else {
        return text(StatusCode::BAD_REQUEST, "a WebSocket handshake is needed");
    };
    let accept = derive_accept_key(key.as_bytes());
    let Ok(accept) = HeaderValue::try_from(accept) else {
        return text(StatusCode::BAD_REQUEST, "a WebSocket handshake is needed");
    };
    let peer = connection.peer;
    let upgrade = hyper::upgrade::on(&mut request);
    // Lives as long as the connection: it ends when either side closes, at the latest with the process.
    tokio::spawn(async move {
        let Ok(upgraded) = upgrade.await else {
            return;
        };
        log::line(format_args!("established websocket connection {peer}"));
        let limits = WebSocketConfig::default().max_message_size(Some(MESSAGE_BYTES_MAX));
        let stream = TokioIo::new(upgraded);
        let mut socket = WebSocketStream::from_raw_socket(stream, Role::Server, Some(limits)).await;
        while let Some(Ok(message)) = socket.next().await {
            let is_content = message.is_text() || message.is_binary();
            if is_content && socket.send(message).await.is_err() {
                return;
            }
        }
    });
    let mut answer = Response::new(full(""));
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = answer.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    answer
}
