//! The edge proxy.

mod host_sockets;
