//! meshgate-sidecar
