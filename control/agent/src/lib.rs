//! meshgate-agent
