//! HTTP/1 on a connection, towards clients and towards endpoints. The bytes themselves are judged by `meshgate-codec`.

mod client;
mod reader;
mod server;
mod writer;

pub(crate) use client::{Answer, Broken, Client, Outcome};
pub(crate) use server::{Inbound, Interims, Next, Refusal, Server};
