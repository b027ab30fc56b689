//! meshgate-proxy
