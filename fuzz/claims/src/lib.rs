//! What holds for any bytes, one function a claim: it returns when the claim holds and panics when it does not.
//!
//! The fuzz targets feed them what a fuzzer invents; the test in `tests/` feeds them what fuzzers found before, so that
//! neither claims nor findings rot. They are written against the parsers' faces only: whatever a parser is made of, its
//! claims stay.

mod chunked;
mod first_bytes;
mod head;
mod hop_by_hop;
mod hpack;
mod http2;
mod parts;
mod proxy_header;
mod request_head;
mod response_head;
mod route;
pub mod same_request;

pub use chunked::chunked;
pub use first_bytes::first_bytes;
pub use hop_by_hop::hop_by_hop;
pub use hpack::hpack;
pub use http2::{http2_client, http2_server};
pub use proxy_header::proxy_header;
pub use request_head::request_head;
pub use response_head::response_head;
pub use route::route;
pub use same_request::same_request;

/// A claim about any input.
pub type Claim = fn(&[u8]);

/// All claims, by the names of their fuzz targets and corpora.
pub const CLAIMS: &[(&str, Claim)] = &[
    ("chunked", chunked),
    ("first_bytes", first_bytes),
    ("hop_by_hop", hop_by_hop),
    ("hpack", hpack),
    ("http2_client", http2_client),
    ("http2_server", http2_server),
    ("proxy_header", proxy_header),
    ("request_head", request_head),
    ("response_head", response_head),
    ("route", route),
    ("same_request", same_request),
];
