//! Connections to endpoints: made, kept, shared, given up.

mod announce;
mod connect;
mod exchange;
mod extended;
mod pool;

pub(crate) use announce::Downstream;
pub(crate) use connect::{Dialer, connect_tcp, overload};
pub(crate) use exchange::{Attempt, Held, Inside, Upgraded, attempt, malformed, tunnel};
pub(crate) use pool::Pool;

/// How an endpoint is spoken to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Wire {
    /// HTTP/1.1 in the clear.
    Http1,
    /// HTTP/2 in the clear.
    Http2,
    /// HTTP/2 over mTLS with the proxy beside the endpoint.
    Mesh,
}
