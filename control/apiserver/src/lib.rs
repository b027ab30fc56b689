//! meshgate-apiserver
