//! The wire format of HTTP/1 (RFC 9112).

mod chunked;
mod framing;
mod limits;
mod lines;
mod request;
mod response;

pub use chunked::{BadChunk, CHUNK_END, Decoder, Step, StepKind, encode_chunk_head, encode_last};
pub use framing::{BadFraming, Framing, request_framing, response_framing};
pub use limits::{BadHead, HeadLimits, Parsed};
pub use request::{RequestParser, parse_request};
pub use response::{ResponseParser, parse_response};
