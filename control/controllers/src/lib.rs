//! meshgate-controllers
