//! meshgate-certs
