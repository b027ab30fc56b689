//! meshgate-proxy

pub mod push;
