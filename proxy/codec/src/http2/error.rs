//! How connections end.

use thiserror::Error;

use super::code::Code;

/// A stream's number; 0 is the connection itself.
pub type StreamId = u32;

/// Why a connection cannot go on (RFC 9113 §5.4.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("{why} ({code})")]
pub struct Broken {
    /// As the peer is told.
    pub code: Code,
    /// None of the texts repeats what the peer sent.
    pub why: &'static str,
}

impl Broken {
    pub(super) const fn new(code: Code, why: &'static str) -> Self {
        Self { code, why }
    }

    pub(super) const fn protocol(why: &'static str) -> Self {
        Self::new(Code::PROTOCOL_ERROR, why)
    }

    pub(super) const fn frame_size(why: &'static str) -> Self {
        Self::new(Code::FRAME_SIZE_ERROR, why)
    }

    pub(super) const fn flood(why: &'static str) -> Self {
        Self::new(Code::ENHANCE_YOUR_CALM, why)
    }

    pub(super) const fn flow(why: &'static str) -> Self {
        Self::new(Code::FLOW_CONTROL_ERROR, why)
    }
}
