//! meshgate-routing
