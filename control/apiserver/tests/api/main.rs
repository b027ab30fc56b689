//! A whole API server in this process, asked over HTTPS like any other.

mod harness;

mod admission;
mod custom;
mod deletion;
mod documents;
mod limits;
mod lists;
mod logs;
mod objects;
mod patches;
mod rights;
mod services;
mod subresources;
mod watches;
mod webhooks;
