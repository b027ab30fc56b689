//! `meshgate ingress --from`: an edge whose configuration is files, without a cluster.
//!
//! Files are read and watched here ([`files`], [`watch`]), checked and compiled as a cluster would ([`configuration`]),
//! and given to the edge, which enforces them as it enforces what a control plane pushes.

mod check;
mod configuration;
mod document;
mod files;
mod follow;
mod object;
mod place;
mod serve;
mod take_over;
mod watch;

pub(crate) use check::check;
pub(crate) use serve::serve;
