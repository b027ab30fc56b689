//! The engine over real sockets on loopback: what clients and origins see.

mod balance;
mod edge;
mod kit;
mod limits;
mod mesh;
mod resilience;
mod strict;
mod tls;
mod upgrade;
