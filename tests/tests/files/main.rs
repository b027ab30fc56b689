//! The edge without a cluster: `meshgate ingress --from`. Nothing here needs root.

mod access;
mod check;
mod follow;
mod limits;
mod listeners;
mod take_over;
mod tls;
