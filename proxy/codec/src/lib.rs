//! HTTP as bytes: HTTP/1's heads and bodies, HTTP/2's frames and streams, and the PROXY protocol, read strictly and
//! written unambiguously.
//!
//! Pure: bytes in, values out. No socket, no runtime, no clock; whoever reads and writes keeps the buffers. What two
//! servers could read as two different messages is refused, in both directions. Nothing is allocated for a message
//! whose values are used again: `clear` keeps their room.

mod authority;
mod content_length;
pub mod digits;
pub mod fields;
mod first_bytes;
mod head;
pub mod http1;
pub mod http2;
mod method;
mod octets;
pub mod proxy_protocol;
mod status;
mod target;
mod version;

pub use authority::{Authority, BadAuthority};
pub use content_length::BadLength;
pub use fields::{Field, FieldError, Fields, Known, KnownSet, Name};
pub use first_bytes::Spoken;
pub use head::{BadHost, RequestHead, ResponseHead};
pub use method::{Method, OtherMethod};
pub use octets::needs_no_escape;
pub use target::{BadTarget, Form, Target};
pub use version::Version;
