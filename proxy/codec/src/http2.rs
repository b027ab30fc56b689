//! HTTP/2 (RFC 9113).

mod head;
mod hpack;

pub use head::{
    BadHead, Malformed, RequestHead, RequestLine, Scheme, decode_request, decode_response,
    decode_trailers, encode_request, encode_response, encode_trailers,
};
pub use hpack::{BadBlock, Decoded, Decoder, Encoder, Kind, Pseudo};
