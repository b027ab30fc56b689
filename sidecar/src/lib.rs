//! The mesh proxy of one pod.

mod ports;
mod privileges;
mod redirect;
#[cfg(test)]
mod testnet;

pub use ports::{InvalidPorts, PortSet};
