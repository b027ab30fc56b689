//! meshgate-agent
pub mod net;
