//! meshgate-store
