//! The engine that edge and sidecar share.
//!
//! A request's life is one story, told once in `story` for HTTP/1 and HTTP/2, edge and mesh, inbound and outbound:
//! identify → route → permit → pick → forward → record. An owner builds an [`Engine`], gives it [`Snapshot`]s and
//! [`Listener`]s, and lets it run. Nothing outside this crate knows what speaks HTTP inside: connections are its own, in
//! `http1` and `http2`, with the bytes judged by `meshgate-codec`. Both meet in one form, in `head` and `body`.

mod admin;
mod body;
pub mod clock;
mod corked;
mod date;
mod deadline;
mod detect;
mod engine;
mod failure;
mod head;
mod headers;
mod http1;
mod http2;
mod interims;
mod io;
pub mod limits;
pub mod listen;
mod local;
pub mod memory;
pub mod metrics;
mod parked;
mod patience;
pub mod push;
mod record;
mod reply;
mod serve;
pub mod service;
pub mod snapshot;
mod spare;
mod stall;
mod story;
mod tcp;
pub mod tls;
pub mod trace;
mod upstream;
mod websocket;
mod wire;
mod worker;

pub use admin::{Admin, Readiness};
pub use engine::{Engine, EngineError, EngineOptions, UnknownDestination};
pub use failure::{Failure, Limited, Reason, Retry, Side, Step};
pub use listen::{Listener, ListenerKind, ListenerLimits, OriginalDestination};
pub use record::RecordFormat;
pub use service::{
    EndpointSpec, HashCookie, HashOn, Limits, Policy, Protocol, ProxyProtocol, Service, ServiceSpec,
};
pub use snapshot::{Rule, Services, Snapshot, Target, Workload};
pub use tls::MeshTls;
pub use tls::origin::{EndpointTls, OriginTls, OriginTlsProblem, OriginTlsSpec};
