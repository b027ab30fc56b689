//! HTTP/2 (RFC 9113).

mod calm;
mod code;
mod connection;
mod departed;
mod error;
mod frame;
mod head;
mod hpack;
mod settings;
mod streams;
mod window;

pub use code::Code;
pub use connection::{Config, Connection, Event, Gone, NoStream, PREFACE, Received, Role};
pub use error::{Broken, StreamId};
pub use head::{
    BadHead, Malformed, RequestHead, RequestLine, Scheme, decode_request, decode_response,
    decode_trailers, encode_request, encode_response, encode_trailers,
};
pub use hpack::{BadBlock, Decoded, Decoder, Encoder, Kind, Pseudo};
pub use streams::Streams;
