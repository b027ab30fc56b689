//! The life of a request, for HTTP/1 and HTTP/2, edge and mesh, inbound and outbound.
//!
//! identify → route → permit → pick → forward → record. What differs between the ways in is decided by
//! [`Direction`](crate::serve::Direction) within a step; the order never changes. One question is asked early: of a rule
//! with nothing behind it, whether the client may ask at all, for only then it is told what is missing.

mod affinity;
mod forward;
mod identify;
mod permit;
mod received;
mod route;

use std::sync::Arc;

use http::StatusCode;
use meshgate_codec::Method;

pub(crate) use affinity::Affinity;
pub(crate) use identify::parse_destination;
pub(crate) use permit::permit_tcp;
pub(crate) use received::Received;
pub(crate) use route::{Route, route_tcp};

use crate::body::ResponseBody;
use crate::clock::{self, Moment};
use crate::deadline::Deadline;
use crate::failure::Failure;
use crate::head::{Response, Switch};
use crate::headers::Introduction;
use crate::record::Exchange;
use crate::reply::{self, Manner};
use crate::serve::Connection;

/// How a story ends.
#[derive(Debug)]
pub(crate) enum Answer {
    Response(Response),
    /// The head to send, and what bytes are exchanged with after it.
    Switch(Response, Box<Switch>),
}

/// What one request on a connection leaves to the next; by default there is no next.
#[derive(Debug, Default)]
pub(crate) struct Routine {
    patience: Deadline,
    introduction: Option<Introduction>,
    /// The last request's, as it was judged.
    authority: Arc<str>,
}

impl Routine {
    /// Of a connection that carries one request after the other.
    pub(crate) fn of_many() -> Self {
        Self {
            introduction: Some(Introduction::default()),
            ..Self::default()
        }
    }
}

/// Answers a request. Every way out is recorded.
pub(crate) async fn answer(connection: &Arc<Connection>, mut received: Received) -> Answer {
    answer_within(
        connection,
        &mut received,
        clock::moment(),
        &mut Routine::default(),
    )
    .await
}

/// The same for a request that began at that moment, on a connection that answers one after the other. What was received
/// is taken out of its place: each async function that moved it would have room for it twice.
pub(crate) async fn answer_within(
    connection: &Arc<Connection>,
    received: &mut Received,
    begun: Moment,
    routine: &mut Routine,
) -> Answer {
    let manner = Manner::of(&received.fields);
    let is_head = received.method == Method::Head;
    let mut exchange = Exchange::begun(connection, received.version.as_str(), begun.time);
    let answer = match tell(connection, received, &mut exchange, (begun, routine)).await {
        Ok(answer) => answer,
        Err(failure) => {
            exchange.failed(&failure);
            Answer::Response(reply::to_failure(&failure, manner))
        }
    };
    let (mut response, switch) = match answer {
        Answer::Response(response) => (response, None),
        Answer::Switch(response, switch) => (response, Some(switch)),
    };
    connection.direction.sign(&mut response.fields);
    match is_head || is_bodyless(response.status) {
        true => {
            // Whatever follows the head from an endpoint or from us, the client must not get.
            response.body = ResponseBody::empty();
            exchange.completed();
        }
        false => response.body = response.body.recorded(exchange),
    }
    match switch {
        None => Answer::Response(response),
        Some(switch) => Answer::Switch(response, switch),
    }
}

/// Answers that end with their heads (RFC 9110 §6.4.1).
fn is_bodyless(status: StatusCode) -> bool {
    status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED
}

/// The story itself.
async fn tell(
    connection: &Arc<Connection>,
    received: &mut Received,
    exchange: &mut Exchange,
    (mut begun, routine): (Moment, &mut Routine),
) -> Result<Answer, Failure> {
    let (mut request, route) = {
        let snapshot = connection.shared.snapshot.load();
        let request = identify::identify(connection, &snapshot, received, exchange, routine)?;
        let route = route::route(connection, &snapshot, &request)?;
        exchange.routed(&route.origin, route.service.name());
        permit::permit(connection, &snapshot, &route, &request)?;
        (request, route)
    };
    if !route.limits.is_empty() {
        Box::pin(permit::limit(connection, &route, &request)).await?;
        begun = clock::moment();
    }
    // Picks an endpoint for each attempt.
    let answer = forward::forward(
        connection,
        &route,
        &mut request,
        exchange,
        (begun, &mut routine.patience),
    )
    .await?;
    let (Answer::Response(head) | Answer::Switch(head, _)) = &answer;
    exchange.answered(head.status.as_u16());
    Ok(answer)
}
