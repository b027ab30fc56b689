//! `meshgate echo`: a small test server that behaves like Gateway API's echo-basic (same environment variables, ports,
//! routes and JSON reply) and fails on request, and its client. It is the image of the examples.
//!
//! | Route | Answer |
//! |---|---|
//! | `/…` | what the server saw of the request, as JSON; `?delay=300ms` first waits; `X-Echo-Set-Header: name:value,…` sets headers of the answer |
//! | `/health` | 200 `OK` |
//! | `/status/NNN` | that status |
//! | `/flaky?rate=0.3` | 503 for that part of the requests, else the JSON |
//! | `/retry/?uuid=U&succeedAfter=N&responseCode=C&delayRetry=D` | status C (after D) for the first N requests with that U, then the JSON |
//! | `/close` | the connection is closed without an answer |
//! | `/bytes/N` | N bytes |
//! | `/ws` | a WebSocket that sends back what comes |
//!
//! gRPC (`gateway_api_conformance.echo_basic.grpcecho.GrpcEcho`) is answered on every HTTP/2 port.

mod call;
mod faults;
mod grpc;
mod http_server;
mod log;
mod options;
mod plain;
mod reply;
mod server;
mod tls;
mod websocket;

pub use call::{CallError, CallOptions, CallSummary, call};
pub use options::{OptionsError, ServeOptions};
pub use server::{ServeError, serve};

#[cfg(test)]
mod tests;
