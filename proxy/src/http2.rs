//! HTTP/2 on a connection, towards clients and towards endpoints. What frames mean is judged by `meshgate-codec`.

mod client;
mod drive;
mod link;
mod outbound;
mod server;
mod slot;
mod tunnel;

pub(crate) use client::{Answer, Asked, Broken, Client, Outcome};
pub(crate) use server::{Inbound, Interims, Opened, Server, Stream};
pub(crate) use slot::End;
pub(crate) use tunnel::Tunnel;
