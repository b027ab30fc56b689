//! HTTP/1 connections: one request after the other, each told as the same story.

use std::sync::Arc;

use http::StatusCode;
use meshgate_codec::http1::{Framing, Persist, StatusLine, encode_response};
use meshgate_codec::{Known, Method, RequestHead, Version};
use tokio::time::Instant;

use super::{Connection, Serving, retirement};
use crate::date;
use crate::failure::{Failure, Reason};
use crate::head::{Response, Switch};
use crate::headers::set;
use crate::http1::{Next, Refusal, Server};
use crate::io::Io;
use crate::reply::{self, Manner};
use crate::story::{Answer, Received, answer};
use crate::tcp;

/// Serves a connection until the client, the deadline of a wait, or the drain ends it.
pub(crate) fn serve_http1(connection: Connection, io: Io) -> Serving {
    let server = Server::new(io, connection.limits);
    Box::pin(serve_requests(Arc::new(connection), server))
}

async fn serve_requests(connection: Arc<Connection>, server: Server) {
    let old_at = Instant::now() + retirement(&connection.limits);
    let mut head = RequestHead::default();
    let mut served = 0;
    loop {
        let body = tokio::select! {
            biased;
            next = server.next(&mut head) => match next {
                Next::Request(body) => body,
                Next::Closed => return,
                Next::Slow => return Box::pin(refuse(&connection, &server, &Refused::slow())).await,
                Next::Refused(refusal) => {
                    let refused = Refused::malformed(&refusal);
                    return Box::pin(refuse(&connection, &server, &refused)).await;
                }
            },
            () = connection.lingered() => return,
        };
        served += 1;
        let last = served >= connection.limits.requests_max || Instant::now() >= old_at;
        let asked = Asked {
            is_head: head.method == Method::Head,
            version: head.version,
            persists: head.persists() && !last,
            changes: head.fields.contains(Known::Upgrade),
        };
        let received = Received::from_http1(&mut head, body);
        // What an exchange takes is many times what waiting for one does: it is not held while nobody asks.
        match Box::pin(exchange(&connection, &server, asked, received)).await {
            After::Next => {}
            After::Over => return,
            After::Change(change) => {
                return Box::pin(change_protocol(&connection, server, *change)).await;
            }
        }
    }
}

/// What follows an exchange.
enum After {
    Next,
    Over,
    Change(Box<Change>),
}

/// Another protocol, that both sides agreed on.
struct Change {
    asked: Asked,
    head: Response,
    switch: Switch,
}

/// One request and its answer.
async fn exchange(
    connection: &Arc<Connection>,
    server: &Server,
    mut asked: Asked,
    received: Received,
) -> After {
    let answered = tokio::select! {
        biased;
        answered = answer(connection, received) => answered,
        () = server.gone() => return After::Over,
    };
    match answered {
        Answer::Response(response) => {
            asked.persists &= !connection.drain.is_cancelled();
            match respond(server, &asked, response).await {
                true => After::Next,
                false => After::Over,
            }
        }
        Answer::Switch(head, switch) => After::Change(Box::new(Change {
            asked,
            head,
            switch: *switch,
        })),
    }
}

/// What an answer must know of its request.
struct Asked {
    is_head: bool,
    version: Version,
    persists: bool,
    /// Another protocol was asked for.
    changes: bool,
}

/// Sends an answer; says whether another request may follow.
async fn respond(server: &Server, asked: &Asked, mut response: Response) -> bool {
    if !response.fields.contains(Known::Date) {
        date::with_now(|now| set(&mut response.fields, Known::Date, now));
    }
    let framing = framing(asked, &response);
    // A client that was not told to send its body may send a request in its place; one that asked for another protocol
    // may have begun to speak it.
    let unclear = server.awaits_continue() || asked.changes && server.has_more();
    let persists = asked.persists && !response.closes && framing != Framing::UntilClose && !unclear;
    let persist = match persists {
        true => Persist::Keep,
        false => Persist::Close,
    };
    let (status, fields) = (response.status.as_u16(), &response.fields);
    let version = asked.version;
    let line = StatusLine { status, version };
    let encode = |out: &mut Vec<u8>| encode_response(line, fields, framing, persist, out);
    if let Err(why) = server.answer(encode, response.body, framing).await {
        // Not closed politely: the client must not take what it has for the whole.
        tracing::debug!(%why, "an answer was cut");
        server.cut(framing == Framing::UntilClose).await;
        return false;
    }
    if persists && server.request_is_over().await {
        return true;
    }
    server.close().await;
    false
}

fn has_body(asked: &Asked, status: StatusCode) -> bool {
    !asked.is_head && status != StatusCode::NO_CONTENT && status != StatusCode::NOT_MODIFIED
}

fn framing(asked: &Asked, response: &Response) -> Framing {
    if response.status == StatusCode::NO_CONTENT {
        return Framing::None;
    }
    if !has_body(asked, response.status) {
        // What a GET would have brought (RFC 9110 §8.6).
        let length = response.fields.get(Known::ContentLength);
        let length = length.and_then(|value| std::str::from_utf8(value).ok()?.parse().ok());
        return length.map_or(Framing::None, Framing::Announced);
    }
    match response.body.length() {
        Some(bytes) => Framing::Length(bytes),
        None if asked.version == Version::Http11 => Framing::Chunked,
        None => Framing::UntilClose,
    }
}

/// Both sides agreed to speak something else: bytes are passed from now on.
async fn change_protocol(connection: &Arc<Connection>, server: Server, change: Change) {
    let Change {
        asked,
        head,
        switch,
    } = change;
    let line = StatusLine {
        status: head.status.as_u16(),
        version: asked.version,
    };
    let (fields, persist) = (&head.fields, Persist::Upgrade(&switch.protocol));
    let encode = |out: &mut Vec<u8>| encode_response(line, fields, Framing::None, persist, out);
    let answered = server.answer(encode, head.body, Framing::None).await;
    if answered.is_err() {
        return;
    }
    if let Some(client) = server.into_io() {
        tcp::relay_upgraded(connection, client, switch).await;
    }
}

/// An answer to what is no request.
struct Refused {
    failure: Failure,
    status: StatusCode,
}

impl Refused {
    fn slow() -> Self {
        let failure = Failure::downstream(Reason::ClientTimeout, "");
        Self {
            status: failure.status(),
            failure,
        }
    }

    fn malformed(refusal: &Refusal) -> Self {
        let (status, why) = match refusal {
            Refusal::Head(bad) => (bad.status(), bad.to_string()),
            Refusal::Framing(bad) => (400, bad.to_string()),
        };
        let reason = match status {
            414 => Reason::UriTooLong,
            431 => Reason::HeadersTooLarge,
            _ => Reason::BadRequest,
        };
        Self {
            failure: Failure::downstream(reason, why),
            status: StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST),
        }
    }
}

/// Says why, and ends the connection: nobody knows where the next request would begin.
async fn refuse(connection: &Connection, server: &Server, refused: &Refused) {
    let metrics = &connection.shared.metrics;
    metrics.refused(connection.direction.name(), refused.failure.reason.as_str());
    let mut response = reply::to_failure(&refused.failure, Manner::Text);
    response.status = refused.status;
    connection.direction.sign(&mut response.fields);
    let asked = Asked {
        is_head: false,
        version: Version::Http11,
        persists: false,
        changes: false,
    };
    respond(server, &asked, response).await;
}
