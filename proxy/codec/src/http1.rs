//! The wire format of HTTP/1 (RFC 9112).

mod chunked;
mod encode;
mod framing;
mod hop_by_hop;
mod limits;
mod lines;
mod reason;
mod request;
mod response;

pub use chunked::{BadChunk, CHUNK_END, Decoder, Step, StepKind, encode_chunk_head, encode_last};
pub use encode::{Persist, RequestLine, StatusLine, Unsayable, encode_request, encode_response};
pub use framing::{BadFraming, Framing, request_framing, response_framing};
pub(crate) use hop_by_hop::HOP_BY_HOP;
pub use hop_by_hop::{Stripped, TooManyOptions, clean_trailers, strip_hop_by_hop};
pub use limits::{BadHead, HeadLimits, OverLimit, Parsed};
pub use request::{RequestParser, parse_request};
pub use response::{ResponseParser, parse_response};
