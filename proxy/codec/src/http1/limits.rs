//! How much a head may be, and why one is refused.

use thiserror::Error;

use crate::fields::FieldError;
use crate::target::BadTarget;

/// What a head may cost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HeadLimits {
    /// From its first byte to the end of its last line.
    pub head_bytes_max: usize,
    /// Lines.
    pub fields_max: usize,
    /// One line without its end; at most 65,535, the width of an entry.
    pub field_bytes_max: usize,
    /// The target of a request.
    pub target_bytes_max: usize,
}

impl Default for HeadLimits {
    fn default() -> Self {
        Self {
            head_bytes_max: 64 * 1024,
            fields_max: 100,
            field_bytes_max: 16 * 1024,
            target_bytes_max: 8 * 1024,
        }
    }
}

/// Which limit a head is over, of HTTP/1 or of HTTP/2.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum OverLimit {
    /// More than [`HeadLimits::target_bytes_max`].
    #[error("the target is too long")]
    Target,
    /// More than [`HeadLimits::field_bytes_max`].
    #[error("a field is too long")]
    Field,
    /// More than [`HeadLimits::fields_max`].
    #[error("too many fields")]
    Fields,
    /// More than [`HeadLimits::head_bytes_max`]; in HTTP/2 a field counts 32 bytes more than its text has (RFC 9113
    /// §6.5.2).
    #[error("the head is too long")]
    Head,
}

impl OverLimit {
    /// What a client is told.
    pub fn status(self) -> u16 {
        match self {
            Self::Target => 414,
            Self::Field | Self::Fields | Self::Head => 431,
        }
    }
}

/// How far reading came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Parsed {
    /// More bytes are needed.
    Partial,
    /// The head is complete.
    Head {
        /// Its bytes; the body begins behind them.
        consumed: usize,
    },
}

/// Why a head is refused. None of the texts repeats what the peer sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum BadHead {
    /// The first line has not three words with one space between them.
    #[error("the first line is malformed")]
    FirstLine,
    /// Three words or more, and the last does not even begin like a version.
    #[error("the first line is of another protocol")]
    OtherProtocol,
    /// One is tolerated before a request (RFC 9112 §2.2).
    #[error("empty lines instead of a request")]
    EmptyLines,
    /// No token, or too long a one.
    #[error("the method is malformed")]
    Method,
    /// See [`BadTarget`].
    #[error(transparent)]
    Target(#[from] BadTarget),
    /// `HTTP/` and digits, but neither 1.0 nor 1.1.
    #[error("the HTTP version is not supported")]
    Version,
    /// Not 100 to 999.
    #[error("the status is malformed")]
    Status,
    /// A bare LF.
    #[error("a line does not end with CR LF")]
    LineEnd,
    /// Line folding (RFC 9112 §5.2).
    #[error("a line begins with a space")]
    Folded,
    /// A space or tab between name and colon (RFC 9112 §5.1).
    #[error("a space before a colon")]
    SpaceBeforeColon,
    /// Empty, no token, or without a colon.
    #[error("the name of a field is malformed")]
    FieldName,
    /// A control character, such as NUL or a bare CR.
    #[error("a control character in a field")]
    FieldValue,
    /// See [`HeadLimits`].
    #[error(transparent)]
    Over(#[from] OverLimit),
}

impl BadHead {
    /// What a client is told. For an upstream's head it is 502 whatever the cause.
    pub fn status(self) -> u16 {
        match self {
            Self::Over(limit) => limit.status(),
            Self::Version => 505,
            _ => 400,
        }
    }
}

impl From<FieldError> for BadHead {
    fn from(error: FieldError) -> Self {
        match error {
            FieldError::BadName => Self::FieldName,
            FieldError::BadValue => Self::FieldValue,
            FieldError::TooLong => OverLimit::Head.into(),
        }
    }
}
