//! HPACK (RFC 7541): the fields of a head as few bytes, by tables that both ends keep in step.
//!
//! Entries are kept as HTTP/1 writes them, `name: value\r\n`: what is named by its index is copied in one piece. What
//! there is to judge about a name or a value is judged once, when it comes in as text, and kept with the entry.

mod decoder;
mod encoder;
mod hash;
mod huffman;
mod integer;
mod places;
mod said;
mod seen;
mod static_table;
mod table;

use thiserror::Error;

pub use decoder::{Decoded, Decoder};
pub use encoder::Encoder;
pub(super) use table::size;

use crate::fields::Known;
use crate::octets;

/// The size of both tables until something else is said (RFC 9113 §6.5.2).
const TABLE_BYTES: usize = 4096;

/// Why a header block cannot be decoded. The tables are out of step then: the connection is lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum BadBlock {
    /// The block ends in the middle of a field.
    #[error("a header block ends too early")]
    Partial,
    /// Above 32 bits, or in more bytes than such a number needs.
    #[error("a number in a header block is too large")]
    Integer,
    /// No table has an entry there.
    #[error("an index in a header block points at nothing")]
    Index,
    /// No code, the code of the end, or a filling that is too long or other than ones.
    #[error("a Huffman code in a header block is malformed")]
    Huffman,
    /// More than was announced.
    #[error("a header block makes the table larger than it may be")]
    TableSize,
    /// Only at the beginning of a block the size may change.
    #[error("a header block changes the table's size behind a field")]
    LateTableSize,
}

/// What a name is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Begins with a colon.
    Pseudo(Pseudo),
    /// Somebody asks for it.
    Known(Known),
    /// A good name that nobody asks for.
    Other,
    /// No token in lower case, and no pseudo-field that there is.
    Malformed,
}

/// The fields that stand for the first line (RFC 9113 §8.3, RFC 8441 §4).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pseudo {
    /// `:authority`
    Authority,
    /// `:method`
    Method,
    /// `:path`
    Path,
    /// `:protocol`
    Protocol,
    /// `:scheme`
    Scheme,
    /// `:status`
    Status,
}

impl Pseudo {
    const ALL: [Self; 6] = [
        Self::Authority,
        Self::Method,
        Self::Path,
        Self::Protocol,
        Self::Scheme,
        Self::Status,
    ];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Authority => ":authority",
            Self::Method => ":method",
            Self::Path => ":path",
            Self::Protocol => ":protocol",
            Self::Scheme => ":scheme",
            Self::Status => ":status",
        }
    }
}

impl Kind {
    /// Judges a name that came as text.
    fn of(name: &[u8]) -> Self {
        if let Some(known) = Known::find(name) {
            // It was found without regard to case.
            return match name == known.as_str().as_bytes() {
                true => Self::Known(known),
                false => Self::Malformed,
            };
        }
        if name.first() == Some(&b':') {
            let pseudo = Pseudo::ALL
                .into_iter()
                .find(|pseudo| pseudo.as_str().as_bytes() == name);
            return pseudo.map_or(Self::Malformed, Self::Pseudo);
        }
        match octets::is_lower_token(name) {
            true => Self::Other,
            false => Self::Malformed,
        }
    }
}

#[cfg(test)]
mod tests;
