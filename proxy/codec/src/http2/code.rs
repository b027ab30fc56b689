//! Why a stream or a connection ends (RFC 9113 §7).

use std::fmt;

/// An error code. Unknown ones stay what they are.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Code(pub u32);

impl Code {
    /// Nothing is wrong.
    pub const NO_ERROR: Self = Self(0x0);
    /// The peer broke the protocol.
    pub const PROTOCOL_ERROR: Self = Self(0x1);
    /// Our own fault.
    pub const INTERNAL_ERROR: Self = Self(0x2);
    /// More was sent than a window allows.
    pub const FLOW_CONTROL_ERROR: Self = Self(0x3);
    /// A frame for a stream that has ended.
    pub const STREAM_CLOSED: Self = Self(0x5);
    /// A frame with an impossible length.
    pub const FRAME_SIZE_ERROR: Self = Self(0x6);
    /// The stream was not looked at: it may be tried again.
    pub const REFUSED_STREAM: Self = Self(0x7);
    /// Nobody wants the stream any more.
    pub const CANCEL: Self = Self(0x8);
    /// A header block that cannot be decoded.
    pub const COMPRESSION_ERROR: Self = Self(0x9);
    /// The peer makes work for nothing.
    pub const ENHANCE_YOUR_CALM: Self = Self(0xb);
    /// The peer should ask by HTTP/1.1.
    pub const HTTP_1_1_REQUIRED: Self = Self(0xd);

    fn name(self) -> Option<&'static str> {
        Some(match self.0 {
            0x0 => "NO_ERROR",
            0x1 => "PROTOCOL_ERROR",
            0x2 => "INTERNAL_ERROR",
            0x3 => "FLOW_CONTROL_ERROR",
            0x4 => "SETTINGS_TIMEOUT",
            0x5 => "STREAM_CLOSED",
            0x6 => "FRAME_SIZE_ERROR",
            0x7 => "REFUSED_STREAM",
            0x8 => "CANCEL",
            0x9 => "COMPRESSION_ERROR",
            0xa => "CONNECT_ERROR",
            0xb => "ENHANCE_YOUR_CALM",
            0xc => "INADEQUATE_SECURITY",
            0xd => "HTTP_1_1_REQUIRED",
            _ => return None,
        })
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "error code {:#x}", self.0),
        }
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
