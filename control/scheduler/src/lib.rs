//! meshgate-scheduler
