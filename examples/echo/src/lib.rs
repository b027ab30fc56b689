//! meshgate-echo
