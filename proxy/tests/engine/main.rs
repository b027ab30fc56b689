//! The engine over real sockets on loopback: what clients and origins see.

// Each module says that it is a test, because clippy's exemption for tests asks for exactly that.
#[cfg(test)]
mod access;
#[cfg(test)]
mod affinity;
#[cfg(test)]
mod announced;
#[cfg(test)]
mod bad_requests;
#[cfg(test)]
mod bad_responses;
#[cfg(test)]
mod balance;
#[cfg(test)]
mod by_hand;
#[cfg(test)]
mod client_certificates;
#[cfg(test)]
mod collector;
#[cfg(test)]
mod early_answers;
#[cfg(test)]
mod edge;
#[cfg(test)]
mod exchanges;
#[cfg(test)]
mod frames;
#[cfg(test)]
mod http2;
#[cfg(test)]
mod http2_bodies;
#[cfg(test)]
mod http2_floods;
#[cfg(test)]
mod http2_frames;
#[cfg(test)]
mod http2_origin;
#[cfg(test)]
mod interims;
#[cfg(test)]
mod kit;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod listeners;
#[cfg(test)]
mod matches;
#[cfg(test)]
mod mesh;
#[cfg(test)]
mod proxied;
#[cfg(test)]
mod resilience;
#[cfg(test)]
mod scarce;
#[cfg(test)]
mod shares;
#[cfg(test)]
mod slow_sides;
#[cfg(test)]
mod spans;
#[cfg(test)]
mod spans_lost;
#[cfg(test)]
mod strict;
#[cfg(test)]
mod tls;
#[cfg(test)]
mod tls_origin;
#[cfg(test)]
mod tls_to_endpoints;
#[cfg(test)]
mod upgrade;
#[cfg(test)]
mod versions;
#[cfg(test)]
mod ways;
#[cfg(test)]
mod websocket;
