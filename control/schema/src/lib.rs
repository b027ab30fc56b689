//! meshgate-schema
