//! meshgate-push
