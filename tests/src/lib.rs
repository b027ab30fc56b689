//! meshgate-tests
