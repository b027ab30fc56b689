//! meshgate-benches
