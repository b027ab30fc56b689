//! The life of a request, for HTTP/1 and HTTP/2, edge and mesh, inbound and outbound.
//!
//! identify → route → permit → pick → forward → record. What differs between the ways in is decided by
//! [`Direction`](crate::serve::Direction) within a step; the order never changes.

mod forward;
mod identify;
mod permit;
mod route;

use std::sync::Arc;

pub(crate) use identify::parse_destination;
pub(crate) use permit::permit_tcp;
pub(crate) use route::{Route, route_tcp};

use crate::failure::Failure;
use crate::head::Response;
use crate::record::Exchange;
use crate::reply::{self, Manner};
use crate::serve::Connection;

/// A request as the HTTP library gives it.
pub(crate) type Received = hyper::Request<hyper::body::Incoming>;

/// Answers a request. Every way out is recorded.
pub(crate) async fn answer(connection: &Arc<Connection>, received: Received) -> Response {
    let manner = Manner::of(received.headers());
    let is_head = received.method() == http::Method::HEAD;
    let protocol = identify::version(&received).name();
    let mut exchange = Exchange::open(connection, protocol);
    let mut response = match tell(connection, received, &mut exchange).await {
        Ok(response) => response,
        Err(failure) => {
            exchange.failed(&failure);
            reply::to_failure(&failure, manner)
        }
    };
    connection.direction.sign(&mut response.headers);
    if is_head {
        exchange.completed();
        return response;
    }
    Response {
        body: response.body.recorded(exchange),
        ..response
    }
}

/// The story itself.
async fn tell(
    connection: &Arc<Connection>,
    received: Received,
    exchange: &mut Exchange,
) -> Result<Response, Failure> {
    let snapshot = connection.shared.snapshot.load_full();
    let request = identify::identify(connection, &snapshot, received, exchange)?;
    let route = route::route(connection, &snapshot, &request)?;
    exchange.routed(&route.origin, route.service.name());
    permit::permit(connection, &snapshot, &route, &request).await?;
    // Picks an endpoint for each attempt.
    let response = forward::forward(connection, &route, request, exchange).await?;
    exchange.answered(response.status.as_u16());
    Ok(response)
}
