//! meshgate-ingress
