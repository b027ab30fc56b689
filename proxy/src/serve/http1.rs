//! HTTP/1 connections: one request after the other, each told as the same story.

use std::future::{Future as _, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use http::StatusCode;
use meshgate_codec::http1::{BadHead, Framing, Persist, StatusLine, encode_response};
use meshgate_codec::{Known, Method, RequestHead, Version};

use super::{Connection, Serving, retirement};
use crate::clock::{self, Moment};
use crate::date;
use crate::failure::{Failure, Reason};
use crate::head::{Closes, Response, Switch};
use crate::http1::{Next, Refusal, Server};
use crate::interims::Interims;
use crate::io::Io;
use crate::reply::{self, Manner};
use crate::spare;
use crate::story::{Answer, Received, Routine, answer_within};
use crate::tcp;

/// Serves a connection until the client, the deadline of a wait, or the drain ends it.
pub(crate) fn serve_http1(connection: Connection, io: Io) -> Serving {
    let server = Server::new(io, connection.limits);
    Box::pin(serve_requests(Arc::new(connection), server))
}

async fn serve_requests(connection: Arc<Connection>, server: Server) {
    let old_at = clock::moment().instant + retirement(&connection.limits);
    // Waited for as long as the connection lives: once is enough to be told.
    let mut lingered = pin!(connection.lingered());
    let mut routine = Routine::of_many();
    let mut head = RequestHead::default();
    let mut served = 0;
    loop {
        let next = poll_fn(|cx| match server.poll_next(cx, &mut head) {
            Poll::Ready(next) => Poll::Ready(next),
            Poll::Pending => lingered.as_mut().poll(cx).map(|()| Next::Closed),
        });
        let body = match next.await {
            Next::Request(body) => body,
            Next::Closed => return,
            Next::Slow => return Box::pin(refuse(&connection, &server, &Refused::slow())).await,
            // Whoever speaks something else must not take an answer for words of that.
            Next::Refused(Refusal::Head(BadHead::OtherProtocol)) if served == 0 => {
                let metrics = &connection.shared.metrics;
                return metrics.refused(connection.direction.name(), "other-protocol");
            }
            Next::Refused(refusal) => {
                let refused = Refused::malformed(&refusal);
                return Box::pin(refuse(&connection, &server, &refused)).await;
            }
        };
        let begun = clock::moment();
        served += 1;
        let last = served >= connection.limits.requests_max || begun.instant >= old_at;
        let asked = Asked {
            is_head: head.method == Method::Head,
            version: head.version,
            persists: head.persists() && !last,
            changes: head.fields.contains(Known::Upgrade),
        };
        let interims = match head.version {
            Version::Http11 => Interims::Http1(server.interims()),
            Version::Http10 | Version::Http2 => Interims::Nowhere,
        };
        let received = Received::from_http1(&mut head, body, interims);
        // What an exchange takes is many times what waiting for one does: it is not held while nobody asks.
        let exchanging = exchange(&connection, &server, asked, received, begun, &mut routine);
        match Box::pin(exchanging).await {
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
    mut received: Received,
    begun: Moment,
    routine: &mut Routine,
) -> After {
    let answered = {
        let mut answered = pin!(answer_within(connection, &mut received, begun, routine));
        poll_fn(|cx| match answered.as_mut().poll(cx) {
            Poll::Ready(answered) => Poll::Ready(Some(answered)),
            Poll::Pending => server.poll_gone(cx).map(|()| None),
        })
        .await
    };
    let Some(answered) = answered else {
        return After::Over;
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
    date::tell(&mut response.fields);
    let framing = framing(asked, &response);
    // A client that was not told to send its body may send a request in its place; one that asked for another protocol
    // may have begun to speak it.
    let unclear = server.awaits_continue() || asked.changes && server.has_more();
    let persists = asked.persists
        && response.closes == Closes::Nothing
        && framing != Framing::UntilClose
        && !unclear;
    let persist = match persists {
        true => Persist::Keep,
        false => Persist::Close,
    };
    let (status, fields) = (response.status.as_u16(), &response.fields);
    let version = asked.version;
    let line = StatusLine { status, version };
    let encode = |out: &mut Vec<u8>| encode_response(line, fields, framing, persist, out);
    let answered = server
        .answer(encode, response.body, (framing, !persists))
        .await;
    spare::give_fields(response.fields);
    if let Err(why) = answered {
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
        return match response.fields.content_length() {
            Ok(Some(length)) => Framing::Announced(length),
            Ok(None) | Err(_) => Framing::None,
        };
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
    let answered = server
        .answer(encode, head.body, (Framing::None, false))
        .await;
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
