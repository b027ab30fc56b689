//! Fields as header blocks.
//!
//! What goes into the table: a field that was said before, not long ago, and one for each name that comes again and that
//! no table has. On first sight a field is written as text and only its hash is kept, so that values which never come
//! again (lengths, ids, most paths) push nothing out, and cost the peer no room. Never in it are secrets, whose bytes
//! could be guessed by watching the length of what is sent (RFC 7541 §7.1); neither are queries and names that sound
//! like secrets, for the same reason.

use super::said::{Found, Said, Text};
use super::seen::Seen;
use super::static_table::{self, COUNT};
use super::{Kind, Pseudo, TABLE_BYTES, huffman, integer};
use crate::fields::Field;
use crate::octets;

/// Encodes the header blocks of one connection, in the order they are sent.
#[derive(Clone, Debug)]
pub struct Encoder {
    said: Said,
    seen: Seen,
    /// What the peer has said since the last block.
    change: Option<Change>,
    /// A name that came in upper case.
    lower: Vec<u8>,
}

/// The table's size is to change. If it was to be smaller for a while, the peer has forgotten entries.
#[derive(Clone, Copy, Debug)]
struct Change {
    least: usize,
    last: usize,
}

/// Representations of fields (RFC 7541 §6): the first bits, and how many bits a number has behind them.
const INDEXED: (u8, u32) = (0x80, 7);
const INDEXING: (u8, u32) = (0x40, 6);
const SIZE: (u8, u32) = (0x20, 5);
const NEVER: (u8, u32) = (0x10, 4);
const WITHOUT: (u8, u32) = (0x00, 4);
/// A string, coded or not.
const CODED: (u8, u32) = (0x80, 7);
const PLAIN: (u8, u32) = (0x00, 7);

/// Larger entries would push too many others out.
const ENTRY_BYTES_MAX: usize = TABLE_BYTES / 4;

impl Default for Encoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Encoder {
    /// With a table of 4,096 bytes, as peers have it until they say otherwise.
    pub fn new() -> Self {
        Self {
            said: Said::new(TABLE_BYTES),
            seen: Seen::default(),
            change: None,
            lower: Vec::new(),
        }
    }

    /// How many entries there are, and their bytes.
    #[cfg(test)]
    pub(super) fn table_size(&self) -> (usize, usize) {
        self.said.table_size()
    }

    /// Takes over the peer's SETTINGS_HEADER_TABLE_SIZE. More than 4,096 bytes are not used.
    pub fn limit_table(&mut self, bytes_max: usize) {
        let last = bytes_max.min(TABLE_BYTES);
        let least = self.change.map_or(last, |change| change.least.min(last));
        self.change = Some(Change { least, last });
    }

    /// Gives back the memory that only work needs, when the connection falls idle.
    pub fn give_back(&mut self) {
        self.said.shrink();
        self.lower = Vec::new();
    }

    /// Begins a block. If the table's size has changed, the peer is told (RFC 7541 §4.2).
    pub fn begin(&mut self, out: &mut Vec<u8>) {
        let Some(Change { least, last }) = self.change.take() else {
            return;
        };
        if least < self.said.bytes_max() {
            self.said.resize(least);
            write(SIZE, least, out);
        }
        if last != self.said.bytes_max() {
            self.said.resize(last);
            write(SIZE, last, out);
        }
    }

    /// Writes a field, its name in lower case.
    pub fn field(&mut self, field: Field<'_>, out: &mut Vec<u8>) {
        let value = field.value;
        if let Some(known) = field.known {
            let text = Text {
                kind: Kind::Known(known),
                name: known.as_str().as_bytes(),
                value,
            };
            return match field.never_indexed || known.is_secret() {
                true => self.literal(NEVER, text, out),
                false => self.indexable(text, out),
            };
        }
        let mut lower = std::mem::take(&mut self.lower);
        let name = match octets::has_upper(field.name) {
            true => {
                lower.clear();
                lower.extend_from_slice(field.name);
                lower.make_ascii_lowercase();
                &lower
            }
            false => field.name,
        };
        let text = Text {
            kind: Kind::Other,
            name,
            value,
        };
        match field.never_indexed {
            true => self.literal(NEVER, text, out),
            false => self.indexable(text, out),
        }
        self.lower = lower;
    }

    /// Writes what stands for the first line.
    pub(crate) fn pseudo(&mut self, pseudo: Pseudo, value: &[u8], out: &mut Vec<u8>) {
        let text = Text {
            kind: Kind::Pseudo(pseudo),
            name: pseudo.as_str().as_bytes(),
            value,
        };
        if let Some(index) = static_table::exact_index(text.kind, value) {
            write(INDEXED, index, out);
        } else if pseudo == Pseudo::Path && memchr::memchr(b'?', value).is_some() {
            self.literal(WITHOUT, text, out);
        } else {
            self.indexable(text, out);
        }
    }

    /// Writes a field as its index, or as text that is or is not put into the table.
    #[inline]
    fn indexable(&mut self, text: Text<'_>, out: &mut Vec<u8>) {
        match self.said.find(text) {
            Found::At(index) => write(INDEXED, COUNT + 1 + index, out),
            Found::Nowhere(hash) => self.unsaid(text, hash, out),
        }
    }

    /// Writes a field that no table has.
    fn unsaid(&mut self, text: Text<'_>, hash: u64, out: &mut Vec<u8>) {
        let comes_again = self.seen.again(hash)
            || self.name_index(text).is_none() && self.seen.again(text.name_hash());
        let most = ENTRY_BYTES_MAX.min(self.said.bytes_max());
        if !comes_again || text.size() > most || text.sounds_secret() {
            return self.literal(WITHOUT, text, out);
        }
        self.literal(INDEXING, text, out);
        self.said.insert(text, hash);
    }

    /// Writes a field as text; its name as an index if there is one.
    fn literal(&self, representation: (u8, u32), text: Text<'_>, out: &mut Vec<u8>) {
        match self.name_index(text) {
            Some(index) => write(representation, index, out),
            None => {
                write(representation, 0, out);
                string(text.name, out);
            }
        }
        string(text.value, out);
    }

    fn name_index(&self, text: Text<'_>) -> Option<usize> {
        let own = || self.said.find_name(text).map(|index| COUNT + 1 + index);
        static_table::name_index(text.kind, text.name).or_else(own)
    }
}

#[inline]
fn write((first, prefix_bits): (u8, u32), number: usize, out: &mut Vec<u8>) {
    integer::write(first, prefix_bits, number, out);
}

/// Appends a string, coded if that is shorter (RFC 7541 §5.2).
fn string(text: &[u8], out: &mut Vec<u8>) {
    let length = huffman::encoded_length(text);
    if length < text.len() {
        write(CODED, length, out);
        huffman::encode(text, out);
    } else {
        write(PLAIN, text.len(), out);
        out.extend_from_slice(text);
    }
}
